//! With the faults turned off, the protocol is the two-phase commit that Gray
//! and Lamport specified ("Consensus on Transaction Commit"): its states, seen
//! through a mapping, are exactly those of their `TwoPhase`, and each of its
//! steps is one of theirs or changes nothing. `tla/check` has TLC count the
//! states of the published specifications.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use dtc_core::{BranchState, Phase};
use dtc_protocol::branch::Branch;
use protocol_model::{Answer, Content, Setup, State, System};
use stateright::Model;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Manager {
    Working,
    Prepared,
    Committed,
    Aborted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Decision {
    Init,
    Committed,
    Aborted,
}

/// A state of TwoPhase. Of `msgs`, 'Commit' and 'Abort' are there exactly when
/// the transaction manager has committed or aborted: it sends them in that step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct TwoPhase {
    managers: Vec<Manager>,
    decision: Decision,
    /// `tmPrepared`.
    heard: Vec<bool>,
    /// The 'Prepared' messages of `msgs`.
    sent: Vec<bool>,
}

impl TwoPhase {
    fn init(count: usize) -> Self {
        Self {
            managers: vec![Manager::Working; count],
            decision: Decision::Init,
            heard: vec![false; count],
            sent: vec![false; count],
        }
    }

    /// `TPNext`, transcribed.
    fn next(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let undecided = self.decision == Decision::Init;
        if undecided && self.heard.iter().all(|heard| *heard) {
            all.push(Self { decision: Decision::Committed, ..self.clone() });
        }
        if undecided {
            all.push(Self { decision: Decision::Aborted, ..self.clone() });
        }
        for index in 0..self.managers.len() {
            let mut step = |change: &dyn Fn(&mut Self)| {
                let mut next = self.clone();
                change(&mut next);
                all.push(next);
            };
            if undecided && self.sent[index] {
                step(&|it| it.heard[index] = true);
            }
            if self.managers[index] == Manager::Working {
                step(&|it| {
                    it.managers[index] = Manager::Prepared;
                    it.sent[index] = true;
                });
                step(&|it| it.managers[index] = Manager::Aborted);
            }
            match self.decision {
                Decision::Init => {}
                Decision::Committed => step(&|it| it.managers[index] = Manager::Committed),
                Decision::Aborted => step(&|it| it.managers[index] = Manager::Aborted),
            }
        }
        all
    }

    fn reachable(count: usize) -> BTreeSet<Self> {
        let mut all = BTreeSet::from([Self::init(count)]);
        let mut open = vec![Self::init(count)];
        while let Some(state) = open.pop() {
            for next in state.next() {
                if all.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        all
    }

    /// What a state of ours is to them.
    fn of(state: &State) -> Self {
        let count = state.participants.len();
        let managers = state.participants.iter().map(|participant| {
            // What is not durable has not happened: its answer has not left.
            match participant.durable.rows.get(&1).map(|row| row.branch) {
                None => Manager::Working,
                Some(Branch::Prepared { .. }) => Manager::Prepared,
                Some(Branch::Committed { .. }) => Manager::Committed,
                Some(Branch::RolledBack { .. }) => Manager::Aborted,
            }
        });
        let transaction = state.machine.transactions.first();
        let aborting = transaction
            .is_some_and(|it| !it.commit && matches!(it.phase, Phase::Aborting | Phase::Ended));
        let decision = match state.journal.commits(1) {
            // While its record is being written, a commit has not been decided.
            Some(true) => Decision::Committed,
            Some(false) => Decision::Aborted,
            None if aborting => Decision::Aborted,
            None => Decision::Init,
        };
        // A vote to commit that was counted; it stays on record after the decision.
        let mut heard = vec![false; count];
        if let Some(transaction) = transaction {
            for branch in &transaction.branches {
                heard[branch.participant.0 as usize] =
                    branch.journal.is_some() && branch.state != BranchState::Refused;
            }
        } else if let Some(decision) = state.journal.decision(1) {
            for branch in &decision.branches {
                heard[branch.participant.0 as usize] =
                    branch.journal.is_some() && branch.state != BranchState::Refused;
            }
        }
        let mut sent = vec![false; count];
        for message in state.network.iter() {
            if let Content::Answer { answer: Answer::Yes { .. }, .. } = message.content {
                sent[usize::from(message.participant)] = true;
            }
        }
        Self { managers: managers.collect(), decision, heard, sent }
    }

    /// The state with its resource managers in every order: the search takes
    /// states that differ in that for one.
    fn permutations(&self) -> Vec<Self> {
        orders(self.managers.len())
            .into_iter()
            .map(|order| Self {
                managers: order.iter().map(|index| self.managers[*index]).collect(),
                decision: self.decision,
                heard: order.iter().map(|index| self.heard[*index]).collect(),
                sent: order.iter().map(|index| self.sent[*index]).collect(),
            })
            .collect()
    }
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let insert = |order: &Vec<usize>, place: usize| {
        let mut order = order.clone();
        order.insert(place, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |place| insert(order, place))).collect()
}

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// What our states are to them, each step checked on the way; and how many they are.
fn images(setup: Setup) -> (BTreeSet<TwoPhase>, usize) {
    let system = System(setup);
    let (mut seen, mut open) = (HashSet::new(), VecDeque::new());
    let (mut images, mut steps) = (BTreeSet::new(), Vec::new());
    for state in system.init_states() {
        seen.insert(hash(&state));
        open.push_back(state);
    }
    while let Some(state) = open.pop_front() {
        let image = TwoPhase::of(&state);
        let theirs = image.next();
        system.actions(&state, &mut steps);
        for step in steps.drain(..) {
            let Some(next) = system.next_state(&state, step) else { continue };
            let after = TwoPhase::of(&next);
            assert!(
                after == image || theirs.contains(&after),
                "'{step}' is no step of TwoPhase: {image:?}, then {after:?}"
            );
            if seen.insert(hash(&next)) {
                open.push_back(next);
            }
        }
        images.insert(image);
    }
    (images.iter().flat_map(TwoPhase::permutations).collect(), seen.len())
}

/// `managers` is how many states TCommit has, which looks at nothing else.
fn check(setup: Setup, expected: usize, managers: usize) {
    let count = setup.participants;
    let theirs = TwoPhase::reachable(count);
    assert_eq!(theirs.len(), expected, "the transcription differs from what TLC counts");
    let (ours, states) = images(setup);
    println!("{count} resource managers: {states} states of ours are {} of theirs", ours.len());
    let missing: Vec<_> = theirs.difference(&ours).take(5).collect();
    assert!(missing.is_empty(), "never reached: {missing:#?}");
    assert_eq!(ours, theirs);
    let seen: BTreeSet<_> = ours.into_iter().map(|image| image.managers).collect();
    assert_eq!(seen.len(), managers, "TCommit");
}

#[test]
fn with_three_participants_it_is_two_phase() {
    check(Setup::faultless(3), 288, 34);
}

#[test]
fn with_five_participants_it_is_two_phase() {
    check(Setup { brief: true, ..Setup::faultless(5) }, 8832, 274);
}
