//! The example of docs/TESTING-YOUR-APP.md for Rust.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use flagsmith::{Flagsmith, FlagsmithOptions};
use flagsmith_flag_engine::types::{FlagsmithValue, FlagsmithValueType};

/// A gateway of its own, on a free port. Dropping it ends it.
struct Gateway {
    child: Child,
    url: String,
}

impl Gateway {
    fn serve(fixture: &str) -> Self {
        let program = std::env::var("FLAGCAST").unwrap_or("flagcast".to_owned());
        let mut child = Command::new(program)
            .args(["serve", "--fixture", fixture])
            .env("FLAGCAST_SERVER__LISTEN", "127.0.0.1:0")
            .env("FLAGCAST_SERVER__OPS_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut urls = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("  URL:").map(|url| url.trim().to_owned()));
        let url = urls.next().expect("the gateway ended before it listened");
        Self { child, url }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn professionals_are_welcome() {
    let gateway = Gateway::serve(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flags.json"));
    for enable_local_evaluation in [false, true] {
        let options = FlagsmithOptions {
            api_url: format!("{}/api/v1/", gateway.url),
            enable_local_evaluation,
            ..FlagsmithOptions::default()
        };
        let flagsmith = Flagsmith::new("ser.test".to_owned(), options);
        let plan =
            FlagsmithValue { value: "pro".to_owned(), value_type: FlagsmithValueType::String };
        let traits = vec![flagsmith::flagsmith::models::SDKTrait::new("plan".to_owned(), plan)];
        let flags = flagsmith.get_identity_flags("ada", Some(traits), None).unwrap();
        assert_eq!(flags.get_feature_value_as_string("banner").unwrap(), "Welcome, professional!");
        assert!(flags.is_feature_enabled("new-checkout").unwrap());
    }
}
