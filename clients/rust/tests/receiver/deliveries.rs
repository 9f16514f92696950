//! What deliveries get: refusals, replays, retries, and the revision that is applied.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use tokio::time::Instant;

use crate::gateway::{Fake, Trick};
use crate::sender::{Clock, Delivery, NOW, send};
use crate::{KEY, builder, eventually};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_delivery_is_answered_when_its_flags_are_there() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    assert!(receiver.wait_ready(SECOND).await);
    gateway.set(42, 101.0, "blue");
    gateway.delay(SECOND);
    let answer = Delivery::of(42, 101.0).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (200, Some(42)), "{}", answer.body);
    assert_eq!(receiver.value("colour"), Some("blue".into()));
    assert_eq!((receiver.revision(), receiver.updated_at()), (Some(42), Some(101.0)));
    assert!(gateway.asked().last().unwrap().uri.ends_with("/flags?rev=42"));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_needs_no_read() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    // The instant decides: a higher revision of an earlier instant is of before a restore.
    for (revision, updated_at) in [(41, 100.0), (40, 99.0), (90, 99.0)] {
        let answer = Delivery::of(revision, updated_at).send(&receiver).await;
        assert_eq!((answer.status, answer.applied()), (200, Some(41)));
    }
    assert_eq!(gateway.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_posts_of_a_reasonable_size_are_read() {
    let gateway = Fake::at(1, 1.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let mut request = Delivery::of(1, 1.0).request();
        *request.method_mut() = method;
        let answer = send(&receiver.service(), request).await;
        assert_eq!((answer.status, &answer.headers["allow"]), (405, &"POST".parse().unwrap()));
        assert_eq!(answer.applied(), None);
    }
    let size = |length: usize| {
        let mut delivery = Delivery::of(1, 1.0);
        let mut body = delivery.body.to_vec();
        body.resize(length, b' ');
        delivery.body = body.into();
        delivery
    };
    assert_eq!(size(256 << 10).send(&receiver).await.status, 200);
    let answer = size((256 << 10) + 1).send(&receiver).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
}

/// A body that says nothing of its size, and one that never ends.
#[tokio::test(start_paused = true)]
async fn bodies_are_bounded_in_size_and_time() {
    let receiver = builder(&Fake::at(1, 1.0, "red"), &Clock::new()).start().unwrap();
    let service = receiver.service();
    let drip = |pieces: usize, every: Duration| {
        let delivery = Delivery::of(1, 1.0);
        let body = Drip { pieces, every, wait: None, claims: 0 };
        let mut request = Request::post("/").body(body).unwrap();
        *request.headers_mut() = delivery.headers();
        request
    };
    assert_eq!(service.handle(drip(300, Duration::from_millis(1))).await.status(), 413);
    let began = Instant::now();
    assert_eq!(service.handle(drip(300, SECOND)).await.status(), 408);
    assert_eq!(began.elapsed(), 8 * SECOND);
    // One that says that it is too large is not waited for.
    let began = Instant::now();
    let mut huge = drip(300, SECOND);
    huge.body_mut().claims = (256 << 10) + 1;
    assert_eq!(service.handle(huge).await.status(), 413);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// Kilobytes, one at a time.
struct Drip {
    pieces: usize,
    every: Duration,
    wait: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    /// What its sender says of its size.
    claims: u64,
}

impl http_body::Body for Drip {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        use std::future::Future as _;
        let every = self.every;
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
        std::task::ready!(wait.as_mut().poll(context));
        self.wait = None;
        let Some(left) = self.pieces.checked_sub(1) else { return std::task::Poll::Ready(None) };
        self.pieces = left;
        let piece = http_body::Frame::data(Bytes::from(vec![b' '; 1024]));
        std::task::Poll::Ready(Some(Ok(piece)))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let mut hint = http_body::SizeHint::default();
        hint.set_lower(self.claims);
        hint
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_for_somebody_else_is_told_so() {
    let receiver = builder(&Fake::at(1, 1.0, "red"), &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    let foreign = json!({"client_key": "other", "revision": 2, "updated_at": 2.0});
    let answer = Delivery::with(&foreign).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (400, None));
    assert!(
        answer.error().contains("`other`") && answer.error().contains(KEY),
        "{}",
        answer.error()
    );
    let answer = Delivery::with(&json!({"client_key": KEY})).send(&receiver).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("revision"), "{}", answer.error());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_comes_twice_is_a_replay() {
    let clock = Clock::new();
    let receiver = builder(&Fake::at(1, 1.0, "red"), &clock).start().unwrap();
    receiver.wait_ready(SECOND).await;
    let delivery = Delivery::of(1, 1.0);
    assert_eq!(delivery.send(&receiver).await.status, 200);
    let replay = delivery.send(&receiver).await;
    assert_eq!((replay.status, replay.applied()), (409, Some(1)));
    // A retry of the gateway has a time of its own.
    assert_eq!(delivery.clone().at(NOW + 5).send(&receiver).await.status, 200);
    // Just before its time is too old it is still known.
    clock.set(NOW + 300);
    assert_eq!(delivery.send(&receiver).await.status, 409);
    clock.set(NOW + 301);
    assert_eq!(delivery.send(&receiver).await.status, 400);
}

/// A forgery must not use up the attempt that it copies.
#[tokio::test(start_paused = true)]
async fn only_what_is_believed_is_remembered() {
    let receiver = builder(&Fake::at(1, 1.0, "red"), &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    let delivery = Delivery::of(1, 1.0);
    let mut forged = delivery.request();
    *forged.body_mut() = Full::from("{}");
    assert_eq!(send(&receiver.service(), forged).await.status, 401);
    assert_eq!(delivery.send(&receiver).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn without_the_flags_the_gateway_is_told_what_is_held() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.always(Some(Trick::Broken));
    let began = Instant::now();
    let delivery = Delivery::of(42, 101.0);
    let answer = delivery.send(&receiver).await;
    assert_eq!(began.elapsed(), 8 * SECOND);
    assert_eq!((answer.status, answer.applied()), (503, Some(41)));
    assert_eq!(answer.headers["retry-after"], "5");
    assert_eq!(receiver.value("colour"), Some("red".into()), "the copy stays");
    // It goes on in the background, and the retry finds the work done.
    gateway.set(42, 101.0, "blue");
    gateway.always(None);
    eventually("the flags come by themselves", || receiver.revision() == Some(42)).await;
    let count = gateway.count();
    let retry = delivery.at(NOW + 5).send(&receiver).await;
    assert_eq!((retry.status, retry.applied(), gateway.count()), (200, Some(42), count));
}

/// Who hangs up must not stop the read that it caused.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_hangs_up_is_followed_all_the_same() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(42, 101.0, "blue");
    gateway.delay(SECOND);
    let delivery = Delivery::of(42, 101.0);
    let sent = tokio::time::timeout(Duration::from_millis(10), delivery.send(&receiver));
    assert!(sent.await.is_err());
    eventually("the flags come", || receiver.revision() == Some(42)).await;
    assert_eq!(gateway.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn deliveries_at_the_same_time_share_a_read() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(42, 101.0, "blue");
    gateway.delay(SECOND);
    let sending = (0..50).map(|_| {
        let receiver = receiver.clone();
        tokio::spawn(async move { Delivery::of(42, 101.0).send(&receiver).await })
    });
    for sent in sending.collect::<Vec<_>>() {
        let answer = sent.await.unwrap();
        assert_eq!((answer.status, answer.applied()), (200, Some(42)));
    }
    assert_eq!(gateway.count(), 2, "one at the start, one for all");
}

/// What is told during a read of something older is read behind it, and both are answered.
#[tokio::test(start_paused = true)]
async fn what_comes_during_a_read_is_read_behind_it() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(42, 101.0, "blue");
    gateway.delay(SECOND);
    let older = {
        let receiver = receiver.clone();
        tokio::spawn(async move { Delivery::of(42, 101.0).send(&receiver).await })
    };
    tokio::time::sleep(SECOND / 2).await;
    gateway.set(43, 102.0, "green");
    let began = Instant::now();
    let newer = Delivery::of(43, 102.0).send(&receiver).await;
    assert_eq!((newer.status, newer.applied()), (200, Some(43)));
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    assert_eq!(older.await.unwrap().status, 200);
    assert_eq!(receiver.value("colour"), Some("green".into()));
    assert_eq!(gateway.count(), 3);
}

/// The address in the body is somebody else's word.
#[tokio::test(start_paused = true)]
async fn flags_are_read_where_the_app_says() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(42, 101.0, "blue");
    let data = json!({"client_key": KEY, "revision": 42, "updated_at": 101.0,
        "flags_url": "http://169.254.169.254/latest"});
    assert_eq!(Delivery::with(&data).send(&receiver).await.status, 200);
    assert!(
        gateway.asked().iter().all(|asked| asked.uri.starts_with("http://flags.test/base/sdk/v1/"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_closed_receiver_says_so_at_once() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.always(Some(Trick::Silent));
    let waiting = {
        let receiver = receiver.clone();
        tokio::spawn(async move { Delivery::of(42, 101.0).send(&receiver).await })
    };
    tokio::time::sleep(SECOND).await;
    let began = Instant::now();
    receiver.close();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.applied()), (503, Some(41)));
    assert_eq!(Delivery::of(43, 102.0).send(&receiver).await.status, 503);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(receiver.value("colour"), Some("red".into()), "the copy stays");
    let count = gateway.count();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(gateway.count(), count, "its tasks are gone");
}
