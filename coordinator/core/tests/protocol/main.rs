//! The protocol in an environment of its own: a journal, participants and a network
//! that do what a test says, and a clock that stands until it is moved.

mod checks;
mod environment;
mod journal;
mod participant;

mod acknowledgements;
mod bounds;
mod compensation;
mod forgetting;
mod inquiries;
mod interactive;
mod keys;
mod links;
mod lock_waits;
mod locks;
mod notifications;
mod one_phase;
mod phase_one;
mod phase_two;
mod recovery;
mod repeats;
mod resolved;
mod schedules;
mod trail;
