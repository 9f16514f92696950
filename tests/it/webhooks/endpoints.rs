//! The management of endpoints: what is refused, what is shown, tests and redeliveries.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Endpoint, gateway};
use crate::harness::Gateway;
use crate::harness::receiver::{Receiver, Reply};

#[tokio::test]
async fn bad_endpoints_are_refused_with_their_rule() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let list = format!("{}/webhooks", environment.path());
    let ok = "https://app.example.com/flagcast";
    for (body, rule) in [
        (json!({"url": "app.example.com"}), "must be a URL"),
        (json!({"url": "ftp://app.example.com"}), "https://"),
        (json!({"url": "http://127.0.0.1:3000/"}), "webhook.allowed_targets"),
        (json!({"url": "http://169.254.169.254/"}), "webhook.allowed_targets"),
        (json!({"url": "http://[::1]/"}), "webhook.allowed_targets"),
        (json!({"url": "https://u:p@app.example.com/"}), "`headers`"),
        (json!({"url": ok, "mode": "sometimes"}), "mode"),
        (json!({"url": ok, "headers": {"x-a": "1\r\nx-b: 2"}}), "printable"),
        (json!({"url": ok, "headers": {"webhook-id": "1"}}), "set by Flagcast"),
        (json!({"url": ok, "secret": "short"}), "whsec_"),
        (json!({"url": ok, "events": ["flag.*"]}), "\"events\""),
        (json!({"url": ok, "mode": "events", "events": ["*"]}), "flag.updated"),
        (json!({"url": ok, "format": "flagsmith"}), "\"events\""),
        (json!({"url": ok, "colour": "red"}), "colour"),
    ] {
        let (status, answer) =
            gateway.admin().send(Method::POST, &list, Some(&body)).await.unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body} {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(rule), "{body}: {answer}");
    }
    assert_eq!(gateway.admin().get(&list).await["items"], json!([]));
}

#[tokio::test]
async fn a_secret_is_shown_once_and_headers_never() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let more = json!({"headers": {"Authorization": "Bearer very-secret"}, "description": "shop"});
    let endpoint = Endpoint::create(&gateway, &environment, &receiver.url(), more).await;
    let shown = endpoint.read().await;
    assert_eq!(shown["headers"], json!(["authorization"]));
    assert_eq!(shown.get("secret"), None);
    let list = gateway.admin().get(&format!("{}/webhooks", environment.path())).await;
    let audit = gateway.admin().get("/audit?action=webhook.created").await;
    for text in [shown.to_string(), list.to_string(), audit.to_string()] {
        assert!(!text.contains("very-secret") && !text.contains(&endpoint.secret), "{text}");
    }
    assert_eq!(audit["items"][0]["after"]["description"], "shop");
    gateway.admin().switch(&environment, "dark-mode", true).await;
    assert_eq!(receiver.delivery(1).await.header("authorization"), "Bearer very-secret");
}

#[tokio::test]
async fn who_may_only_read_sees_no_endpoint_and_editors_make_none() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let list = format!("{}/webhooks", environment.path());
    let as_role = async |role: &str, method: Method, path: &str, body: Option<Value>| {
        let token = gateway.admin().token(json!({"name": role, "role": role})).await;
        let admin = crate::harness::admin::Admin::new(gateway.url("/admin/v1"), &token);
        admin.send(method, path, body.as_ref()).await.unwrap().0
    };
    let new = json!({"url": receiver.url()});
    assert_eq!(as_role("viewer", Method::GET, &list, None).await, 403);
    assert_eq!(as_role("editor", Method::GET, &list, None).await, 200);
    assert_eq!(as_role("editor", Method::POST, &list, Some(new)).await, 403);
    assert_eq!(as_role("editor", Method::DELETE, &endpoint.path, None).await, 403);
    let test = format!("{}/test", endpoint.path);
    assert_eq!(as_role("editor", Method::POST, &test, None).await, 200);
    assert_eq!(as_role("viewer", Method::POST, &test, None).await, 403);
}

#[tokio::test]
async fn a_test_answers_with_how_it_went() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    let test = format!("{}/test", endpoint.path);
    let well = admin.post(&test, json!({})).await;
    assert_eq!((&well["kind"], &well["state"]), (&json!("test"), &json!("delivered")));
    assert_eq!(well["log"][0]["status"], 200);
    assert_eq!(well["log"][0]["answer"], "note");
    assert_eq!(receiver.delivery(1).await.kind(), "webhook.test");
    receiver.next([Reply::Status(404)]);
    let ill = admin.post(&test, json!({})).await;
    assert_eq!((&ill["state"], &ill["log"][0]["outcome"]), (&json!("failed"), &json!("refused")));
    // It says something about the test, and nothing about the endpoint's own deliveries.
    assert_eq!(endpoint.read().await["status"], "healthy");
}

#[tokio::test]
async fn a_delivery_can_be_sent_again_under_its_name() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of_events(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    admin.switch(&environment, "dark-mode", true).await;
    admin.switch(&environment, "dark-mode", false).await;
    endpoint.becomes("pending", 0).await;
    receiver.delivery(2).await;
    let first = endpoint.deliveries().await[0].clone();
    let path = format!("{}/deliveries/{}/redeliver", endpoint.path, first["id"]);
    let again = admin.post(&path, json!({})).await;
    assert_eq!(again["log"].as_array().unwrap().len(), 2);
    assert_eq!(again["state"], "delivered");
    let all = receiver.deliveries();
    assert_eq!((all.len(), all[2].id()), (3, all[0].id()));
    let missing = format!("{}/deliveries/999/redeliver", endpoint.path);
    let (status, _) = admin.send(Method::POST, &missing, None).await.unwrap();
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_new_url_begins_anew() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let (old, new) = (Receiver::open().await, Receiver::open().await);
    old.always(Reply::Status(500));
    let endpoint = Endpoint::of(&gateway, &environment, &old).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    endpoint.becomes("status", "failing").await;
    gateway.admin().patch(&endpoint.path, json!({"url": new.url()})).await;
    new.told(revision).await;
    endpoint.becomes("status", "healthy").await;
}

#[tokio::test]
async fn a_deleted_endpoint_is_told_nothing_more() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let (gone, stays) = (Receiver::open().await, Receiver::open().await);
    gone.next([Reply::Hang]);
    let endpoint = Endpoint::of(&gateway, &environment, &gone).await;
    Endpoint::of(&gateway, &environment, &stays).await;
    let admin = gateway.admin();
    admin.switch(&environment, "dark-mode", true).await;
    gone.delivery(1).await;
    // While an attempt is under way.
    admin.delete(&endpoint.path).await;
    let newest = admin.switch(&environment, "dark-mode", false).await;
    stays.told(newest).await;
    assert_eq!(gone.count(), 1);
    let (status, _) = admin.send(Method::GET, &endpoint.path, None).await.unwrap();
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_number_of_endpoints_has_a_limit() {
    let gateway = gateway().set("limits.webhooks_per_environment", 1).start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    Endpoint::of(&gateway, &environment, &receiver).await;
    let body = json!({"url": receiver.url()});
    let list = format!("{}/webhooks", environment.path());
    let (status, answer) = gateway.admin().send(Method::POST, &list, Some(&body)).await.unwrap();
    assert_eq!((status.as_u16(), &answer["code"]), (409, &json!("limit_reached")));
}
