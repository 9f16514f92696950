//! Options that cannot work are refused at the start, with what is wrong, the rule and the way out.

use std::time::Duration;

use flagcast_receiver::{OptionError, Receiver};

use crate::KEY;
use crate::sender::SECRET;

const URL: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn what_cannot_work_is_told() {
    let good = || Receiver::builder(URL, KEY).secret(SECRET);
    good().start().unwrap();
    good().poll(Duration::ZERO).start().unwrap();
    let short = Duration::from_millis(10);
    for (builder, words) in [
        (Receiver::builder("flags.example.com", KEY).secret(SECRET), ["`url`", "https://"]),
        (Receiver::builder("http://h/?rev=1", KEY).secret(SECRET), ["`url`", "query"]),
        (Receiver::builder(URL, "").secret(SECRET), ["`client_key`", "letters"]),
        (Receiver::builder(URL, "a/../b").secret(SECRET), ["`client_key`", "a/../b"]),
        (Receiver::builder(URL, KEY), ["`secret`", "webhooks"]),
        (good().secret("whsec_short"), ["number 2", "base64"]),
        (good().secret("C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), ["number 2", "whsec_"]),
        (good().poll(short), ["`poll`", "1s"]),
        (good().read_timeout(short), ["`read_timeout`", "1s"]),
        (good().answer_within(Duration::ZERO), ["`answer_within`", "1s"]),
    ] {
        let error = builder.start().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn a_runtime_is_needed() {
    let error = Receiver::builder(URL, KEY).secret(SECRET).start().unwrap_err();
    assert!(matches!(error, OptionError::NoRuntime), "{error}");
}

#[tokio::test]
async fn secrets_are_never_told() {
    let builder = Receiver::builder(URL, KEY).secret(SECRET);
    assert!(!format!("{builder:?}").contains("C2FV"));
    let receiver = builder.start().unwrap();
    assert!(!format!("{receiver:?} {:?}", receiver.service()).contains("C2FV"));
    let error = Receiver::builder(URL, KEY).secret("whsec_C2FV").start().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("C2FV"));
}
