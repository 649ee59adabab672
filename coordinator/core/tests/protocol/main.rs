//! The protocol in a world of its own: a journal, participants and a network
//! that do what a test says, and a clock that stands until it is moved.

mod checks;
mod journal;
mod participant;
mod world;

mod acknowledgements;
mod bounds;
mod compensation;
mod forced;
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
mod schedules;
mod trail;
