//! What a user gets: segments, overrides and splits, decided without I/O.
//!
//! A [`Context`] is everything that a decision rests on; an [`Evaluator`] is its compiled form, made once
//! per revision. Every outcome that can happen has a number, so that answers are put together from
//! bytes that were rendered once. The answers are those of Flagsmith's engines, which SDKs run by
//! themselves on the same document.

mod answer;
mod audience;
mod check;
mod context;
mod evaluator;
mod explain;
mod hash;
mod outcome;
mod portable;
mod property;
mod run;
mod seen;
mod test;

pub use answer::{Answer, AnsweredFlag, AnsweredSegment, ContextError};
pub use audience::Audience;
pub use check::{
    Circle, Fault, RuleLimits, check_dependencies, check_rules, features_read, rules_to_keep,
};
pub use context::{
    ConditionContext, Context, EnvironmentContext, FeatureContext, IdentityContext, RuleContext,
    SegmentContext, VariantContext, anchored, unanchored,
};
pub use evaluator::Evaluator;
pub use explain::{
    ExplainedCondition, ExplainedFlag, ExplainedRange, ExplainedSegment, ExplainedSplit,
    Explanation, Failure, Why,
};
pub use hash::bucket;
pub use outcome::{
    CIRCULAR_REASON, CONTROL, Cause, Evaluation, IDENTITY_OVERRIDES, Outcome, Subject,
};
pub use portable::portable;
