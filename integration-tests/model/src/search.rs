//! Breadth-first search with parents: shortest counterexamples, and whether the
//! end can still be reached from everywhere.
//!
//! States are kept as 64-bit fingerprints: of ten million states, two are taken
//! for one with a probability of three in a million.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt::Write as _,
    time::{Duration, Instant},
};

use stateright::{Expectation, Model, Property};

use crate::{
    projection::fingerprint, properties::faults, setup::Use, state::State, step::Step,
    system::System,
};

/// The name of the property that is not one of a single state.
pub const REACHES_END: &str = "everything can still be finished, from every state";

/// A state, by the order in which it was found.
type Place = u32;

/// What a search found.
#[derive(Debug)]
pub struct Report {
    /// Distinct states, permutations of participants not counted.
    pub states: usize,
    /// Steps between them, those that change nothing included.
    pub steps: usize,
    /// The longest of the shortest paths.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Each property's result.
    pub results: Vec<Verdict>,
}

/// What became of a property.
#[derive(Debug)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// Whether it is one that has to occur.
    pub sometimes: bool,
    /// Whether all is well with it.
    pub holds: bool,
    /// The shortest way to its example or counterexample, where there is one.
    pub path: Option<Vec<Step>>,
}

/// How far a search is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// States found.
    pub states: usize,
    /// Of these, states whose steps are still to be taken.
    pub waiting: usize,
    /// Steps from the start.
    pub depth: usize,
    /// Since the start.
    pub took: Duration,
}

/// How a search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All states were seen.
    Exhausted,
    /// A property was violated.
    Violated,
}

struct Graph {
    places: HashMap<u64, Place>,
    /// Of each state the state that it was found from, and the step.
    parents: Vec<(Place, Option<Step>)>,
    depths: Vec<u16>,
    /// Steps, backwards; filled where reachability is asked for.
    edges: Vec<(Place, Place)>,
    finished: Vec<Place>,
    steps: usize,
}

/// Visits every state of a system.
pub fn search(system: &System, until: Until, mut progress: impl FnMut(Progress)) -> Report {
    let started = Instant::now();
    let properties = system.properties();
    let mut found: Vec<Option<Place>> = vec![None; properties.len()];
    let mut graph = Graph {
        places: HashMap::new(),
        parents: Vec::new(),
        depths: Vec::new(),
        edges: Vec::new(),
        finished: Vec::new(),
        steps: 0,
    };
    let mut queue = VecDeque::new();
    for state in system.init_states() {
        if graph.add(&state, 0, None).is_some() {
            judge(system, &state, 0, &properties, &mut found);
            queue.push_back((0, state));
        }
    }
    let mut steps = Vec::new();
    while let Some((place, state)) = queue.pop_front() {
        if until == Until::Violated && is_violated(&properties, &found) {
            break;
        }
        if place % 50_000 == 0 {
            let depth = graph.depths[place as usize].into();
            let (states, waiting) = (graph.parents.len(), queue.len());
            progress(Progress { states, waiting, depth, took: started.elapsed() });
        }
        system.actions(&state, &mut steps);
        for step in steps.drain(..) {
            let Some(next) = system.next_state(&state, step) else { continue };
            graph.steps += 1;
            if let Some(new) = graph.add(&next, place, Some(step)) {
                judge(system, &next, new, &properties, &mut found);
                queue.push_back((new, next));
            }
        }
    }
    let mut results: Vec<Verdict> = properties
        .iter()
        .zip(&found)
        .map(|(property, found)| graph.verdict(property, *found))
        .collect();
    if system.0.usage != Use::AnyCoordinator && !results.iter().any(|it| !it.holds && !it.sometimes)
    {
        let stuck = graph.stuck();
        results.push(Verdict {
            name: faults::reaches_end(&system.0),
            sometimes: false,
            holds: stuck.is_none(),
            path: stuck.map(|place| graph.path(place)),
        });
    }
    Report {
        states: graph.parents.len(),
        steps: graph.steps,
        depth: graph.depths.last().copied().unwrap_or(0).into(),
        took: started.elapsed(),
        results,
    }
}

fn is_violated(properties: &[Property<System>], found: &[Option<Place>]) -> bool {
    let always = |property: &Property<System>| property.expectation == Expectation::Always;
    properties.iter().zip(found).any(|(property, found)| always(property) && found.is_some())
}

fn judge(
    system: &System,
    state: &State,
    place: Place,
    properties: &[Property<System>],
    found: &mut [Option<Place>],
) {
    for (property, found) in properties.iter().zip(found).filter(|(_, found)| found.is_none()) {
        let wanted = property.expectation == Expectation::Sometimes;
        if (property.condition)(system, state) == wanted {
            *found = Some(place);
        }
    }
}

impl Graph {
    /// Adds a state; its place if it is new.
    fn add(&mut self, state: &State, from: Place, step: Option<Step>) -> Option<Place> {
        let new = self.parents.len() as Place;
        match self.places.entry(fingerprint(state)) {
            Entry::Occupied(known) => {
                if *known.get() != from {
                    self.edges.push((*known.get(), from));
                }
                None
            }
            Entry::Vacant(vacant) => {
                vacant.insert(new);
                self.parents.push((from, step));
                let depth = step.map_or(0, |_| self.depths[from as usize] + 1);
                self.depths.push(depth);
                if step.is_some() {
                    self.edges.push((new, from));
                }
                if System::is_finished(state) {
                    self.finished.push(new);
                }
                Some(new)
            }
        }
    }

    fn path(&self, mut place: Place) -> Vec<Step> {
        let mut path = Vec::new();
        while let (from, Some(step)) = self.parents[place as usize] {
            path.push(step);
            place = from;
        }
        path.reverse();
        path
    }

    fn verdict(&self, property: &Property<System>, found: Option<Place>) -> Verdict {
        let sometimes = property.expectation == Expectation::Sometimes;
        Verdict {
            name: property.name,
            sometimes,
            holds: found.is_some() == sometimes,
            path: found.map(|place| self.path(place)),
        }
    }

    /// The first state from which no end can be reached.
    fn stuck(&mut self) -> Option<Place> {
        let count = self.parents.len();
        let mut edges = std::mem::take(&mut self.edges);
        edges.sort_unstable();
        let mut reaches = vec![false; count];
        let mut open = self.finished.clone();
        for place in &open {
            reaches[*place as usize] = true;
        }
        while let Some(place) = open.pop() {
            let first = edges.partition_point(|(to, _)| *to < place);
            for (_, from) in edges[first..].iter().take_while(|(to, _)| *to == place) {
                if !std::mem::replace(&mut reaches[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        reaches.iter().position(|reaches| !reaches).map(|place| place as Place)
    }
}

impl Report {
    /// The properties that were violated, or that never occurred.
    pub fn failures(&self) -> impl Iterator<Item = &Verdict> {
        self.results.iter().filter(|verdict| !verdict.holds)
    }

    /// The first violation of what always holds.
    pub fn violation(&self) -> Option<&Verdict> {
        let violations = self.failures().filter(|verdict| !verdict.sometimes);
        violations.min_by_key(|verdict| verdict.path.as_ref().map_or(0, Vec::len))
    }

    /// The report as a person reads it.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for verdict in &self.results {
            let result = match (verdict.holds, verdict.sometimes) {
                (true, false) => "holds",
                (true, true) => "occurs",
                (false, false) => "VIOLATED",
                (false, true) => "NEVER OCCURS",
            };
            let depth = match &verdict.path {
                Some(path) => format!(" (in {} steps)", path.len()),
                None => String::new(),
            };
            let _ = writeln!(text, "  {result:9} {}{depth}", verdict.name);
            if let (false, Some(path)) = (verdict.holds, &verdict.path) {
                for (number, step) in (1..).zip(path) {
                    let _ = writeln!(text, "      {number:2}. {step}");
                }
            }
        }
        let rate = self.states as f64 / self.took.as_secs_f64().max(0.001);
        let _ = writeln!(
            text,
            "{} states, {} steps, depth {}, {:.1?}, {rate:.0} states/s",
            self.states, self.steps, self.depth, self.took
        );
        text
    }
}
