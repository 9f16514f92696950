//! The servers that are measured: the gateway and its peers, each started as a process of its own
//! on loopback.

mod axum_sse;
mod bare_loop;
mod control;
mod flips;
mod gateway;
mod nchan;
mod nginx;
mod pushpin;
mod subject;

pub(crate) use axum_sse::run as run_axum_sse;
pub(crate) use bare_loop::run as run_bare_loop;
pub(crate) use flips::Flips;
pub(crate) use gateway::{Environment, Gateway, Setup};
pub(crate) use nginx::{Job, Nginx};
pub(crate) use subject::{Change, Kind, Subject};
