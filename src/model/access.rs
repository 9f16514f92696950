//! Who may do what: roles and scopes of management tokens.

use serde::{Deserialize, Serialize};

use super::TokenId;

/// What a token may do. A larger role may do all that a smaller one may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything in its scope.
    Viewer,
    /// Also takes whole environments as a relay does, and hands on what a relay's clients tell; it changes no
    /// flag.
    Relay,
    /// Also changes flags and features.
    Editor,
    /// Also makes and deletes projects, environments, keys and tokens.
    Admin,
}

impl Role {
    /// The role as it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Relay => "relay",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role named so, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Viewer, Self::Relay, Self::Editor, Self::Admin];
        all.into_iter().find(|role| role.as_str() == text)
    }
}

/// The part of the store that a token reaches. An environment without a project cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Key of the only project, or all.
    pub project: Option<String>,
    /// Key of the only environment in that project, or all.
    pub environment: Option<String>,
}

impl Scope {
    /// Whether a request for `project` and `environment` (each as far as it names one) is inside.
    /// A request that names less than the scope does is outside: it would reach more.
    #[must_use]
    pub fn covers(&self, project: Option<&str>, environment: Option<&str>) -> bool {
        let within = |limit: Option<&str>, asked: Option<&str>| limit.is_none() || limit == asked;
        within(self.project.as_deref(), project) && within(self.environment.as_deref(), environment)
    }
}

/// A management token as the store knows it: never the secret, only who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Row number.
    pub id: TokenId,
    /// What people call it; it is the actor of the changes it makes.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where it may do it.
    pub scope: Scope,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered() {
        assert!(Role::Viewer < Role::Relay && Role::Relay < Role::Editor);
        assert!(Role::Editor < Role::Admin);
        assert_eq!(Role::parse("editor"), Some(Role::Editor));
        assert_eq!(Role::parse("Editor"), None);
    }

    #[test]
    fn a_scope_covers_what_is_inside_and_nothing_wider() {
        let all = Scope::default();
        let web = Scope { project: Some("web".into()), environment: None };
        let staging = Scope { environment: Some("staging".into()), ..web.clone() };
        assert!(all.covers(None, None) && all.covers(Some("web"), Some("staging")));
        assert!(web.covers(Some("web"), None) && !web.covers(Some("app"), None));
        assert!(!web.covers(None, None));
        assert!(staging.covers(Some("web"), Some("staging")));
        assert!(
            !staging.covers(Some("web"), None) && !staging.covers(Some("app"), Some("staging"))
        );
    }
}
