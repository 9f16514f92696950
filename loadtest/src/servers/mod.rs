//! The servers that are measured: the gateway, its peers and the caches in front of it, each started as a process of its own
//! on loopback.

mod axum_sse;
mod bare_loop;
mod bare_sender;
mod control;
mod endpoints;
mod flips;
mod gateway;
mod meter;
mod nchan;
mod nginx;
mod postgres;
mod program;
mod pushpin;
mod relay;
mod subject;
pub(crate) mod targeting;
mod varnish;

pub(crate) use axum_sse::run as run_axum_sse;
pub(crate) use bare_loop::run as run_bare_loop;
pub(crate) use bare_sender::{BareSender, run as run_bare_sender};
pub(crate) use endpoints::Endpoint;
pub(crate) use flips::Flips;
pub(crate) use gateway::{Environment, Gateway, Writer};
pub(crate) use meter::{Meter, Reading};
pub(crate) use nginx::{Job, Nginx};
pub(crate) use postgres::{Postgres, Session};
pub(crate) use program::Setup;
pub(crate) use relay::Relay;
pub(crate) use subject::{Change, Kind, Subject};
pub(crate) use varnish::{Caches, Daemon, Way};
