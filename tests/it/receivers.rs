//! The receivers of `clients/`, each in its example app, against a real gateway: a change is in the app a
//! moment later and the gateway knows it; neither needs the other to go on.
//!
//! The stories are the same for all (`stories`); what is of one language alone is in its file. Apps do not
//! poll here, so what they know comes from a delivery, from their copy, or from the one read at their start.

mod node;
mod python;
mod ruby;
mod rust;
mod stories;
mod world;
