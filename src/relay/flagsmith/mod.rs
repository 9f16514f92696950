//! In front of Flagsmith: what a relay asks there and what it makes of the answers.

mod document;
