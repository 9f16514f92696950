//! Where flag sets come from: what the cache asks, whoever answers.

use crate::model::{EnvironmentId, EnvironmentState, Revision};
use crate::store::{Store, StoreError};

/// Answers what is true now. The store does; so does whatever stands in for it.
pub trait Truth: Clone + Send + Sync + 'static {
    /// Whether others may know of something newer than what we were told.
    fn is_shared(&self) -> bool;

    /// The newest revision of an environment, or nothing when it is gone.
    fn revision(
        &self,
        id: EnvironmentId,
    ) -> impl Future<Output = Result<Option<Revision>, StoreError>> + Send;

    /// Everything about an environment, as of one instant; nothing when it is gone.
    fn environment_state(
        &self,
        id: EnvironmentId,
    ) -> impl Future<Output = Result<Option<EnvironmentState>, StoreError>> + Send;
}

impl Truth for Store {
    fn is_shared(&self) -> bool {
        self.is_shared()
    }

    async fn revision(&self, id: EnvironmentId) -> Result<Option<Revision>, StoreError> {
        self.revision(id).await
    }

    async fn environment_state(
        &self,
        id: EnvironmentId,
    ) -> Result<Option<EnvironmentState>, StoreError> {
        self.environment_state(id).await
    }
}
