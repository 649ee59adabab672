//! The process's own metrics.

use std::time::Duration;

use prometheus::{
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::{Counter, MetricFamily},
};
use rustix::time::{ClockId, clock_gettime};

const CPU: &str = "process_cpu_seconds_total";

/// The library's collector, which counts CPU time in whole seconds only, with
/// the parts of a second.
pub(crate) struct ProcessMetrics {
    collector: ProcessCollector,
}

impl ProcessMetrics {
    pub(crate) fn new() -> Self {
        Self { collector: ProcessCollector::for_self() }
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.collector.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.collector.collect();
        let cpu = families.iter_mut().filter(|family| family.name() == CPU);
        for metric in cpu.flat_map(MetricFamily::mut_metric) {
            let mut counter = Counter::default();
            counter.set_value(cpu_time().as_secs_f64());
            metric.set_counter(counter);
        }
        families
    }
}

/// What this process has used.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_told_to_parts_of_a_second() {
        let shown = || {
            let families = ProcessMetrics::new().collect();
            let cpu = families.iter().find(|family| family.name() == CPU).unwrap();
            cpu.get_metric()[0].get_counter().get_value()
        };
        let before = shown();
        let worked = cpu_time();
        while cpu_time() < worked + Duration::from_millis(5) {}
        let after = shown();
        assert!(after >= before + 0.005, "{before} and then {after}");
    }
}
