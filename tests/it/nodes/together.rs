//! Two nodes are asked for the same thing in the same moment.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::store::Database;
use crate::harness::{Gateway, http};

const ROUNDS: u64 = 50;

/// Asks all nodes at once for a change of one flag, each for its own value, with one more header.
async fn ask_all(
    nodes: &[Gateway],
    environment: &Environment,
    (name, value): (&str, &str),
    bodies: &[Value],
) -> Vec<(StatusCode, bool, Value)> {
    let path = format!("{}/flags/limit", environment.path());
    let asks = nodes.iter().zip(bodies).map(|(node, body)| {
        node.admin().request(Method::PATCH, &path).header(name, value).json(body).send()
    });
    let mut answers = Vec::new();
    for answer in join_all(asks).await {
        let answer = answer.unwrap();
        let replayed = answer.headers().contains_key("idempotency-replayed");
        answers.push((answer.status(), replayed, answer.json().await.unwrap()));
    }
    answers
}

#[tokio::test]
async fn of_two_changes_of_what_both_saw_one_wins() {
    let database = Database::create().await;
    let nodes = Gateway::builder().nodes(2, database.url()).await;
    let environment = nodes[0].shop().await;
    let mut revision = nodes[0].admin().revision(&environment).await;
    let mut wins = [0, 0];
    for round in 0..ROUNDS {
        let bodies = [0, 1].map(|node| json!({ "value": 1000 + 2 * round + node }));
        let seen = format!("\"{revision}\"");
        let answers = ask_all(&nodes, &environment, ("if-match", &seen), &bodies).await;
        let winners: Vec<usize> = (0..2).filter(|node| answers[*node].0 == 200).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let (winner, loser) = (winners[0], 1 - winners[0]);
        wins[winner] += 1;
        assert_eq!(answers[loser].0, StatusCode::PRECONDITION_FAILED, "{answers:?}");
        assert_eq!(answers[loser].2["revision"], revision + 1, "where it is now");
        revision += 1;
        assert_eq!(answers[winner].2["revision"], revision);
        for node in &nodes {
            let flags = node.flags(&environment.client_key).await;
            assert_eq!(flags["revision"], revision);
            assert_eq!(flags["flags"]["limit"]["value"], bodies[winner]["value"]);
        }
    }
    eprintln!("of {ROUNDS} rounds the nodes have won {wins:?}");
}

#[tokio::test]
async fn what_two_nodes_are_asked_for_under_one_key_is_done_once() {
    let database = Database::create().await;
    let nodes = Gateway::builder().nodes(3, database.url()).await;
    let environment = nodes[0].shop().await;
    let mut revision = nodes[0].admin().revision(&environment).await;
    for round in 0..ROUNDS {
        let bodies = vec![json!({ "value": 1000 + round }); nodes.len()];
        let key = format!("order-{round}");
        let answers = ask_all(&nodes, &environment, ("idempotency-key", &key), &bodies).await;
        revision += 1;
        for (status, _, answer) in &answers {
            assert_eq!((status.as_u16(), &answer["revision"]), (200, &json!(revision)));
        }
        assert_eq!(answers.iter().filter(|(_, replayed, _)| !replayed).count(), 1, "{answers:?}");
        assert_eq!(nodes[0].admin().revision(&environment).await, revision);
    }
}

/// Changes of one project at all nodes: they queue, and each has its own revision.
#[tokio::test]
async fn revisions_of_changes_at_all_nodes_have_no_gap() {
    let database = Database::create().await;
    let nodes = Gateway::builder().nodes(3, database.url()).await;
    let environment = nodes[0].shop().await;
    let base = nodes[0].admin().revision(&environment).await;
    let url = |node: &Gateway| node.url(&format!("/admin/v1{}/flags/limit", environment.path()));
    let changes = (0..60).map(|number| {
        let node = &nodes[number % nodes.len()];
        let request = http().patch(url(node)).bearer_auth(crate::harness::ADMIN_TOKEN);
        request.json(&json!({ "value": 1000 + number })).send()
    });
    let mut revisions = Vec::new();
    for answer in join_all(changes).await {
        let answer: Value = answer.unwrap().error_for_status().unwrap().json().await.unwrap();
        revisions.push(answer["revision"].as_u64().unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (base + 1..=base + 60).collect::<Vec<_>>());
}
