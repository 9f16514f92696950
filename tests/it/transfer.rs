//! `flagcast export` and `flagcast import`: a project moves, and nobody notices.

mod command;
mod copies;
mod flagsmith;
mod moves;
mod refusals;
mod whole;
mod world;
