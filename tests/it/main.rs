//! Black-box tests: the real program, real sockets, published clients.
//!
//! Each test starts its own gateway on free ports with a store in a temporary directory, and speaks
//! to it only as a user can: over HTTP, by signals, through files. `README.md` beside this folder
//! says what the tests need; `make test` installs it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tasks of a test end with its runtime")]

mod abuse;
mod alerts;
mod browser;
mod browser_client;
mod cached;
mod canary;
mod cdn;
mod chaos;
mod clusters;
mod command_line;
mod connections;
mod crowds;
mod departures;
mod divergences;
mod evaluate;
mod fastly;
mod faults;
mod first_minute;
mod fixture;
mod flipper;
mod freshness;
mod harness;
mod identities;
mod listen;
mod management;
mod matrix;
mod nodes;
mod ofrep;
mod openapi;
mod openfeature;
mod openfeature_web;
mod outages;
mod pace;
mod proxies;
mod purge;
mod push_only;
mod reads;
mod receivers;
mod relay_flagsmith;
mod relays;
mod rolling;
mod scenarios;
mod sdk_identity;
mod sdk_js;
mod sdk_python;
mod sdk_server;
mod shutdown;
mod snapshots;
mod squid;
mod store_away;
mod streams;
mod targeting;
mod testing_your_app;
mod tls;
mod transfer;
mod webhooks;
mod wire;
