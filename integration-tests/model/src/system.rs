//! The system as a model: what may happen in each state.

use dtc_core::{Pace, Phase};
use stateright::{Model, Property};

use crate::{
    network::{Content, Message, Request},
    participant::Vote,
    properties::{self, faults::is_left_alone},
    setup::{Setup, Use},
    state::State,
    step::Step,
};

/// The coordinator, its participants, its client and everything that may go
/// wrong, within the bounds of a [`Setup`].
#[derive(Debug, Clone, Copy)]
pub struct System(pub Setup);

impl System {
    fn client_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let (setup, client) = (&self.0, &state.client);
        if client.requests < setup.requests() {
            steps.push(Step::Begin);
        }
        if !client.has_id {
            return;
        }
        if setup.enlist_keys {
            steps.extend((0..client.enlisted).map(Step::EnlistAgain));
        }
        let preparing = client.asked_prepare || client.asked_commit || client.asked_rollback;
        if usize::from(client.enlisted) < setup.participants {
            if !preparing {
                steps.push(Step::Enlist);
            }
        } else if !client.asked_prepare && !client.asked_commit {
            steps.push(Step::AskPrepare);
        }
        if !client.asked_commit && (client.asked_prepare || !setup.orderly) {
            steps.push(Step::AskCommit);
        }
        if !client.asked_rollback {
            steps.push(Step::AskRollback);
        }
    }

    fn coordinator_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let setup = &self.0;
        let machine = &state.machine;
        steps.extend(state.lookups.iter().map(|run| Step::AnswerLookup(*run)));
        let pending = state.journal.pending.len() as u8;
        if pending > 0 {
            steps.push(Step::Sync);
        }
        if state.crashes > 0 {
            steps.extend((0..=pending).map(|survivors| Step::Crash { survivors }));
        }
        if !setup.brief && machine.transactions.iter().any(|it| it.deadline) {
            steps.push(Step::Deadline);
        }
        let paces = || machine.transactions.iter().flat_map(|it| it.branches.iter());
        if state.resolutions > 0 {
            for transaction in &machine.transactions {
                let decided = matches!(transaction.phase, Phase::Committing | Phase::Aborting);
                let owed = transaction.branches.iter().filter(|it| decided && it.state.is_owed());
                let id = crate::journal::number(transaction.id);
                for branch in owed.filter(|it| it.resolved.is_none()) {
                    let participant = branch.participant.0 as u8;
                    steps.extend([true, false].map(|commit| Step::Resolve {
                        participant,
                        id,
                        commit,
                    }));
                }
            }
        }
        if !setup.retries {
            // After a restart of the coordinator its participants are linked all the same.
            let away = machine.participants.iter().filter(|it| !it.connected);
            steps.extend(away.map(|it| Step::Connect(it.id.0 as u8)));
            return;
        }
        if paces().any(|branch| branch.pace != Pace::Still) {
            steps.push(Step::EverythingDue);
        }
        for transaction in &machine.transactions {
            for branch in &transaction.branches {
                if branch.pace == Pace::Running {
                    let participant = branch.participant.0 as u8;
                    let id = crate::journal::number(transaction.id);
                    steps.push(Step::Unreachable { participant, id });
                }
            }
        }
        for participant in 0..setup.participants {
            let known = machine.participants.iter().find(|it| it.id.0 as usize == participant);
            let connected = known.is_some_and(|known| known.connected);
            let journal = known.and_then(|known| known.journal);
            let mut here = paces().filter(|it| it.participant.0 as usize == participant);
            if !connected
                || !state.knows_journal(participant, journal)
                || here.any(|branch| matches!(branch.pace, Pace::Waiting | Pace::Owed))
            {
                steps.push(Step::Connect(participant as u8));
            }
            if connected && setup.broken_links {
                steps.push(Step::Disconnect(participant as u8));
            }
        }
    }

    fn deliveries(&self, state: &State, message: &Message, steps: &mut Vec<Step>) {
        let setup = &self.0;
        let mut push = |vote| steps.push(Step::Deliver { message: *message, vote });
        let participant = &state.participants[usize::from(message.participant)];
        let (epoch, request) = match message.content {
            Content::Request { epoch, request } => (epoch, request),
            Content::Answer { answer, .. } if setup.brief && answer.acknowledges() => return,
            Content::Answer { .. } => return push(Vote::Yes),
        };
        if !setup.batches && participant.written.is_some() {
            return;
        }
        let Request::Prepare { one_phase, payload } = request else {
            push(Vote::Yes);
            if setup.domain_fails && participant.would_apply(message.id, epoch, request) {
                push(Vote::Fails);
            }
            return;
        };
        if !participant.would_reserve(message.id, epoch, payload) {
            return push(Vote::Yes);
        }
        // Whether a branch changes anything is in its payload: it does not change.
        let fixed = participant.changes.get(&message.id);
        if setup.read_only && (setup.fickle || fixed != Some(&true)) {
            push(Vote::ReadOnly);
        }
        if !setup.fickle && fixed == Some(&false) {
            return;
        }
        push(Vote::Yes);
        if setup.plain && one_phase {
            push(Vote::Plain);
        }
        if setup.refusals {
            push(Vote::No);
        }
        if setup.traceless {
            push(Vote::Traceless);
        }
    }

    /// Whether nothing is owed to anybody, and nobody is in doubt.
    pub fn is_finished(state: &State) -> bool {
        state.is_idle()
            && state.journal.pending.is_empty()
            && state.lookups.is_empty()
            && state.participants.iter().all(|participant| {
                participant.written.is_none()
                    && participant
                        .durable
                        .rows
                        .keys()
                        .all(|id| !participant.is_in_doubt(*id) || is_left_alone(participant, *id))
            })
    }

    /// Where the only transaction is, as its machine sees it.
    pub fn phase(state: &State) -> Option<Phase> {
        state.machine.transactions.first().map(|it| it.phase)
    }
}

impl Model for System {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.0)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        if self.0.usage != Use::AnyCoordinator {
            self.client_steps(state, steps);
            self.coordinator_steps(state, steps);
        }
        for (index, participant) in state.participants.iter().enumerate() {
            let index = index as u8;
            if participant.written.is_some() {
                steps.push(Step::SyncParticipant(index));
                // With nothing to lose, a crash changes nothing here.
                if state.crashes > 0 && !self.0.coordinator_crashes {
                    steps.push(Step::CrashParticipant(index));
                }
            }
            // The answer to an older question would find the branch decided.
            if participant.supports_inquiry && self.0.usage != Use::AnyCoordinator {
                let rows = participant.durable.rows.keys();
                let doubts = rows.filter(|id| participant.asks_about(**id));
                steps.extend(doubts.map(|id| Step::Ask { participant: index, id: *id }));
            }
            if self.0.batches || participant.written.is_none() {
                for (id, _) in participant.pending() {
                    let retry = |vote| Step::RetryPending { participant: index, id, vote };
                    steps.extend([Vote::Yes, Vote::Fails].map(retry));
                }
            }
            if state.lost_disks > 0 {
                steps.push(Step::LoseDisk(index));
            }
        }
        for message in state.network.iter() {
            self.deliveries(state, message, steps);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Begin => state.begin(&self.0),
            Step::Enlist => state.enlist(&self.0),
            Step::EnlistAgain(number) => state.enlist_again(&self.0, number),
            Step::AskPrepare => state.ask_prepare(),
            Step::AskCommit => state.ask_commit(),
            Step::AskRollback => state.ask_rollback(),
            Step::AnswerLookup(run) => state.answer_lookup(run),
            Step::Sync => state.sync(),
            Step::Crash { survivors } => state.crash(&self.0, survivors.into()),
            Step::Deadline => state.deadline(),
            Step::EverythingDue => state.everything_due(),
            Step::Unreachable { participant, id } => state.unreachable(participant.into(), id),
            Step::Resolve { participant, id, commit } => state.resolve(participant, id, commit),
            Step::Connect(participant) => state.connect(participant.into()),
            Step::Disconnect(participant) => state.disconnect(participant.into()),
            Step::Ask { participant, id } => state.ask(participant.into(), id),
            Step::Deliver { message, vote } => match message.content {
                Content::Request { .. } => state.deliver(&self.0, &message, vote),
                Content::Answer { .. } => state.hear(&message),
            },
            Step::RetryPending { participant, id, vote } => {
                state.retry_pending(&self.0, participant.into(), id, vote)
            }
            Step::SyncParticipant(participant) => {
                state.sync_participant(&self.0, participant.into())
            }
            Step::CrashParticipant(participant) => state.crash_participant(participant.into()),
            Step::LoseDisk(participant) => state.lose_disk(participant.into()),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.0)
    }
}
