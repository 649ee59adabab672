//! Waiting for links: while a participant is known to be away, nothing is asked of the
//! others.

use alloc::{format, sync::Arc};

use super::{Context, Phase, RecordPurpose, Transaction};
use crate::{Reason, TrailKind};

impl Transaction {
    /// Waits for the links of all its participants, holding nothing new meanwhile.
    pub(super) fn become_linking(&mut self, context: &mut Context) {
        if self.state != Phase::Linking {
            let grace = self.options.link_grace.min(self.options.prepare_timeout);
            self.state = Phase::Linking;
            self.deadline = Some(context.now + grace);
            if self.id_may_be_known && !self.logged {
                self.append(self.begin_record(context), true, RecordPurpose::Opened, context);
            }
            self.note(context, TrailKind::LinksAwaited, None);
            if grace.is_zero() {
                return self.give_up_links(context);
            }
        }
        for branch in &self.branches {
            let participant = context.participants.get(branch.participant);
            if !participant.connected {
                participant.awaited.insert(self.id);
            }
        }
        self.set_timer(context);
    }

    /// A participant that it waits for is back.
    pub(crate) fn link_is_up(&mut self, context: &mut Context) {
        if self.state == Phase::Linking {
            self.start_prepare(context);
        }
    }

    /// It waits for links no more.
    pub(super) fn stop_linking(&mut self, context: &mut Context) {
        if self.state == Phase::Linking {
            for branch in &self.branches {
                context.participants.get(branch.participant).awaited.remove(&self.id);
            }
        }
    }

    /// No link in time: it is aborted, and nobody was asked for anything.
    pub(super) fn give_up_links(&mut self, context: &mut Context) {
        let away = |it: &&super::Branch| !context.participants.get(it.participant).connected;
        let participant = self.branches.iter().find(away).map(|it| it.participant);
        let known = participant.and_then(|it| context.participants.get(it).away.clone());
        let grace = self.options.link_grace.min(self.options.prepare_timeout);
        let message = format!(
            "there was no link to the participant for {grace:?}, so that nothing was sent to any: {}",
            known.as_deref().unwrap_or("it is being connected to")
        );
        let code = "PARTICIPANT_UNAVAILABLE".into();
        self.abort(Arc::new(Reason { code, message, participant }), context);
    }
}
