//! The protocol in a world of its own: a journal, participants and a network
//! that do what a test says, and a clock that stands until it is moved.

mod journal;
mod participant;
mod schedules;
mod world;
