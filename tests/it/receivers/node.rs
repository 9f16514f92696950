//! The receiver for Node.

use super::stories;
use super::world::Language;

#[tokio::test]
async fn a_change_is_applied() {
    stories::a_change_is_applied(Language::Node).await;
}

#[tokio::test]
async fn neither_needs_the_other() {
    stories::neither_needs_the_other(Language::Node).await;
}

#[tokio::test]
async fn who_was_away_is_told() {
    stories::who_was_away_is_told(Language::Node).await;
}

#[tokio::test]
async fn events_and_tests_are_taken() {
    stories::events_and_tests_are_taken(Language::Node).await;
}

#[tokio::test]
async fn a_rotation_leaves_no_gap() {
    stories::a_rotation_leaves_no_gap(Language::Node).await;
}
