//! Where tests have the process killed; see `dtc_store::crash_point`.

use dtc_core::{Event, Message, Record};
#[cfg(feature = "sqlite")]
use dtc_store::crash_point;

/// Without a disk there is nothing that a crash could leave.
#[cfg(not(feature = "sqlite"))]
fn crash_point(_: &str) {}

/// Before the machine gets an event.
pub(super) fn taken(event: &Event) {
    match event {
        Event::Acknowledged { number: 2.., .. } => {
            crash_point("coordinator-first-undone");
            crash_point("coordinator-first-acknowledged");
        }
        Event::Acknowledged { .. } => crash_point("coordinator-first-acknowledged"),
        _ => {}
    }
}

/// Before a record goes to the journal.
pub(super) fn appending(record: &Record) {
    match record {
        // Not the first, and nothing is decided by it.
        Record::Decision(decision) if decision.ended_at.is_some() => {}
        Record::Decision(decision) if decision.commit => {
            crash_point("coordinator-before-decision-durable");
        }
        Record::Decision(decision) if decision.number > 1 => {
            crash_point("coordinator-before-compensation-durable");
        }
        Record::End(_) => crash_point("coordinator-before-end-durable"),
        _ => {}
    }
}

/// Before a message goes to its link.
pub(super) fn sending(message: &Message) {
    match message {
        Message::Prepare { .. } => crash_point("coordinator-before-prepare"),
        Message::Commit { .. } => crash_point("coordinator-decision-durable"),
        Message::Rollback { compensate: true, .. } => {
            crash_point("coordinator-compensation-durable");
        }
        Message::Rollback { .. } => {}
    }
}
