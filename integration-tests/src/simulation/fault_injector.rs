//! Makes what is planned happen to the network and the machines, and heals it.

use std::{collections::BTreeMap, io, mem, time::Duration};

use turmoil::Sim;

use super::{
    node::Node,
    plan::{CLIENTS, DiskFault, End, Fault, Planned, Wire},
};
use crate::Role;

/// How long a step of a sound machine's storage takes at most.
/// In milliseconds: a clock that is off by less is only set.
const HOUR: i64 = 3_600_000;
const SOUND: Duration = Duration::from_millis(2);

/// The four machines and what is wrong with each.
pub(super) struct FaultInjector {
    pub(super) nodes: [Node; 4],
    latency: Duration,
    /// What is to be healed, and when.
    healing: Vec<(Duration, Fault)>,
    /// Machines that were killed, to be buried after a step.
    killed: BTreeMap<usize, Killed>,
    /// Machines that are off, and when they start.
    off: BTreeMap<usize, Duration>,
    /// When machines started last, if not at the beginning.
    started: BTreeMap<usize, Duration>,
    /// Machines whose power fails at a later write: when they start then.
    failing: BTreeMap<usize, Duration>,
    /// How many strangers there were, and whether one is there now.
    strangers: (usize, bool),
    /// Exit codes that the present faults excuse.
    excused: [Vec<u8>; 4],
    /// How often each fault came.
    pub(super) counts: BTreeMap<&'static str, usize>,
    /// Processes that ended as they must not.
    pub(super) crashes: Vec<String>,
}

struct Killed {
    at: Duration,
    /// When it starts again.
    until: Duration,
    /// Whether what it had not synced is lost.
    lost: bool,
}

/// How long a start takes at most until the database is open, on a sound disk.
const OPENED_WITHIN: Duration = Duration::from_secs(1);
/// How long a process is off that ended by itself.
const RESTART: Duration = Duration::from_millis(300);
/// What is to be healed only then stays.
const FOR_GOOD: Duration = Duration::from_secs(100_000);
/// What a process ends with whose storage has failed.
const STORAGE: u8 = 74;
/// What a start ends with whose file cannot be made.
const CONFIGURATION: u8 = 2;

impl FaultInjector {
    pub(super) fn new(nodes: [Node; 4], latency: Duration) -> Self {
        Self {
            nodes,
            latency,
            healing: Vec::new(),
            killed: BTreeMap::new(),
            off: BTreeMap::new(),
            started: BTreeMap::new(),
            failing: BTreeMap::new(),
            strangers: (0, false),
            excused: Default::default(),
            counts: BTreeMap::new(),
            crashes: Vec::new(),
        }
    }

    /// A fault begins.
    pub(super) fn strike(&mut self, sim: &mut Sim<'static>, planned: Planned) -> io::Result<()> {
        let until = planned.at.saturating_add(planned.length);
        tracing::info!(fault = ?planned.fault, length = ?planned.length, "strikes");
        match planned.fault {
            Fault::End(end, roles) => {
                for role in roles.all() {
                    self.end(role, end, planned.at, until);
                }
            }
            Fault::Wire(wire, one, other) => {
                self.healing.push((until, planned.fault));
                match wire {
                    Wire::Cut => sim.partition(one, other),
                    Wire::CutOneWay => sim.partition_oneway(one, other),
                    Wire::Held => sim.hold(one, other),
                    Wire::Slow(latency) => sim.set_link_latency(one, other, latency),
                }
            }
            Fault::Disk(fault, role) => {
                self.healing.push((until, planned.fault));
                let node = &self.nodes[role as usize];
                match fault {
                    DiskFault::Full => node.disk().set_fault(Some("write-full")),
                    DiskFault::SyncError => node.disk().set_fault(Some("sync-error")),
                    DiskFault::Slow(longest) => node.slow_down(longest),
                }
                if !matches!(fault, DiskFault::Slow(_)) {
                    self.excused[role as usize].push(STORAGE);
                }
            }
            Fault::Clock(role, milliseconds) => {
                self.nodes[role as usize].set_clock_error(milliseconds);
                if milliseconds.abs() >= HOUR {
                    self.healing.push((until, planned.fault));
                }
            }
            Fault::Backup => self.nodes[Role::Coordinator as usize].back_up()?,
            Fault::Restore => {
                let index = Role::Coordinator as usize;
                if self.nodes[index].restore_at_start() && !self.off.contains_key(&index) {
                    self.kill(index, planned.at, until, false);
                }
            }
            Fault::Displaced(role) => {
                let index = role as usize;
                if self.has_its_file_open(index, planned.at) && self.nodes[index].displace()? {
                    self.excused[index].push(STORAGE);
                    self.healing.push((until, planned.fault));
                }
            }
            Fault::Stranger => {
                self.healing.push((until, planned.fault));
                self.strangers = (self.strangers.0 + 1, true);
                self.change_coordinator(sim, planned.at);
            }
        }
        *self.counts.entry(name(&planned.fault)).or_default() += 1;
        Ok(())
    }

    /// Whether its process has opened its database for certain.
    fn has_its_file_open(&self, index: usize, now: Duration) -> bool {
        let is_slow = |(_, fault): &(_, Fault)| match fault {
            Fault::Disk(_, role) => *role as usize == index,
            _ => false,
        };
        let up = !self.off.contains_key(&index) && !self.killed.contains_key(&index);
        let started = self.started.get(&index).copied().unwrap_or_default();
        up && now > started + OPENED_WITHIN && !self.healing.iter().any(is_slow)
    }

    fn end(&mut self, role: Role, end: End, now: Duration, until: Duration) {
        let (index, node) = (role as usize, &self.nodes[role as usize]);
        if self.off.contains_key(&index) || self.killed.contains_key(&index) {
            return;
        }
        match end {
            End::Stop => {
                self.failing.insert(index, until);
                self.excused[index].push(0);
                node.stop();
            }
            End::PowerLossAfter(changes) => {
                self.failing.insert(index, until);
                node.disk().cut_after(changes);
            }
            End::Kill | End::PowerLoss => self.kill(index, now, until, end == End::PowerLoss),
        }
    }

    /// The coordinator ends and starts again, as a stranger or as itself.
    fn change_coordinator(&mut self, sim: &mut Sim<'static>, now: Duration) {
        let (index, (number, here)) = (Role::Coordinator as usize, self.strangers);
        let name = format!("stranger-{number}");
        self.nodes[index].use_journal_of(here.then_some(&*name));
        for host in CLIENTS {
            match here {
                true => sim.partition(Role::Coordinator.name(), host),
                false => sim.repair(Role::Coordinator.name(), host),
            }
        }
        if !self.off.contains_key(&index) && !self.killed.contains_key(&index) {
            self.kill(index, now, now, false);
        }
    }

    /// A machine's process ends.
    pub(super) fn kill(&mut self, index: usize, at: Duration, until: Duration, lost: bool) {
        self.nodes[index].kill();
        self.failing.remove(&index);
        self.killed.insert(index, Killed { at, until, lost });
    }

    /// Those that were killed before this step are off now.
    fn bury(&mut self, sim: &mut Sim<'static>, now: Duration) -> io::Result<()> {
        let (dead, dying) =
            mem::take(&mut self.killed).into_iter().partition(|(_, killed)| killed.at < now);
        self.killed = dying;
        let dead: BTreeMap<_, _> = dead;
        for (index, killed) in dead {
            self.nodes[index].bury(sim);
            self.nodes[index].put_back()?;
            if killed.lost {
                self.nodes[index].disk().lose_unsynced()?;
            }
            self.excused[index].clear();
            self.off.insert(index, killed.until);
        }
        Ok(())
    }

    /// Heals and starts what is due, and looks after processes that have ended.
    pub(super) fn tend(&mut self, sim: &mut Sim<'static>, now: Duration) -> io::Result<()> {
        let due: Vec<_> = self.healing.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, fault) in due {
            self.heal_one(sim, fault, now)?;
        }
        self.bury(sim, now)?;
        for index in 0..self.nodes.len() {
            self.look_after(index, now);
        }
        while let Some((&index, _)) = self.off.iter().find(|(_, at)| **at <= now) {
            self.off.remove(&index);
            self.started.insert(index, now);
            let node = &self.nodes[index];
            tracing::info!(role = node.role.name(), "starts");
            node.start(sim)?;
            self.excuse_faults_of(index);
        }
        Ok(())
    }

    fn look_after(&mut self, index: usize, now: Duration) {
        if self.off.contains_key(&index) || self.killed.contains_key(&index) {
            return;
        }
        let node = &self.nodes[index];
        let (ended, power_failed) = (node.ended(), node.disk().is_cut());
        let until = self.failing.get(&index).copied().unwrap_or(now + RESTART);
        if let Some((code, why)) = &ended {
            let role = node.role.name();
            tracing::info!(role, code, why, "ended");
            let excused = self.excused[index].contains(code)
                || power_failed && [STORAGE, CONFIGURATION].contains(code);
            if !excused {
                self.crashes.push(format!("{role} ended with exit code {code}: {why}"));
            }
        }
        if ended.is_some() || power_failed {
            // After a failed sync nobody knows what is on the disk.
            let storage_failed = ended.is_some_and(|(code, _)| code == STORAGE);
            let lost = power_failed || storage_failed && node.starts().is_multiple_of(2);
            self.kill(index, now, until.max(now), lost);
        }
    }

    /// After a start the disk is as bad as before it.
    fn excuse_faults_of(&mut self, index: usize) {
        let bad = self.healing.iter().any(|(_, fault)| match fault {
            Fault::Disk(DiskFault::Full | DiskFault::SyncError, role) => *role as usize == index,
            _ => false,
        });
        if bad {
            self.excused[index].push(STORAGE);
        }
    }

    /// Ends all faults; what is off starts.
    pub(super) fn heal(&mut self, sim: &mut Sim<'static>, now: Duration) -> io::Result<()> {
        for (until, fault) in mem::take(&mut self.healing) {
            if until < FOR_GOOD {
                self.heal_one(sim, fault, now)?;
            }
        }
        let killed = self.killed.values_mut().map(|killed| &mut killed.until);
        for until in self.off.values_mut().chain(self.failing.values_mut()).chain(killed) {
            *until = now;
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if self.failing.contains_key(&index) && !node.disk().is_cut() {
                node.disk().restore();
            }
        }
        tracing::info!("healed");
        self.tend(sim, now)
    }

    fn heal_one(&mut self, sim: &mut Sim<'static>, fault: Fault, now: Duration) -> io::Result<()> {
        tracing::info!(?fault, "heals");
        match fault {
            Fault::Wire(Wire::Cut, one, other) => sim.repair(one, other),
            Fault::Wire(Wire::CutOneWay, one, other) => sim.repair_oneway(one, other),
            Fault::Wire(Wire::Held, one, other) => sim.release(one, other),
            Fault::Wire(Wire::Slow(_), one, other) => {
                sim.set_link_latency(one, other, self.latency);
            }
            Fault::Disk(DiskFault::Slow(_), role) => self.nodes[role as usize].slow_down(SOUND),
            Fault::Disk(_, role) => self.nodes[role as usize].disk().set_fault(None),
            Fault::Stranger => {
                self.strangers.1 = false;
                self.change_coordinator(sim, now);
            }
            Fault::Displaced(role) => {
                if self.nodes[role as usize].put_back()? {
                    let name = role.name();
                    self.crashes.push(format!("{name} ran on though its database was moved away"));
                }
            }
            Fault::Clock(role, _) => self.nodes[role as usize].set_clock_error(0),
            Fault::End(..) | Fault::Backup | Fault::Restore => {}
        }
        if self.strangers.1 {
            // It may have been this that kept clients away.
            for host in CLIENTS {
                sim.partition(Role::Coordinator.name(), host);
            }
        }
        Ok(())
    }
}

/// What a fault is counted as.
fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::End(End::Kill, _) => "kill",
        Fault::End(End::Stop, _) => "stop",
        Fault::End(End::PowerLoss, _) => "power loss",
        Fault::End(End::PowerLossAfter(_), _) => "power loss while writing",
        Fault::Wire(Wire::Cut, ..) => "network cut",
        Fault::Wire(Wire::CutOneWay, ..) => "network cut one way",
        Fault::Wire(Wire::Held, ..) => "network held",
        Fault::Wire(Wire::Slow(_), ..) => "network slow",
        Fault::Disk(DiskFault::Full, _) => "disk full",
        Fault::Disk(DiskFault::SyncError, _) => "syncs fail",
        Fault::Disk(DiskFault::Slow(_), _) => "disk slow",
        Fault::Clock(_, milliseconds) if milliseconds.abs() < HOUR => "clock set",
        Fault::Clock(..) => "clock set by days",
        Fault::Backup => "backup",
        Fault::Restore => "backup restored",
        Fault::Displaced(_) => "database displaced",
        Fault::Stranger => "stranger",
    }
}
