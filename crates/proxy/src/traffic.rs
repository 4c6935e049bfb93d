//! What passed, by tenant, load balancer and service.
//!
//! A worker counts in numbers of its own and adds them to those of all once a second: nothing on
//! the way of a request is shared or locked.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base::{LbId, ServiceId, TenantId};
use runtime::metrics::{Collector, DescriptorEncoder, Kind, Metrics, NoLabelSet};

/// Series of a process; what comes beyond is counted together, without labels.
const MAX_SERIES: usize = 10_000;
/// How often a worker's numbers are added to those of all.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// Upper bounds of durations, in microseconds.
const BOUNDS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];
/// By the first digit of the status; without an answer: none.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Whose numbers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Whose {
    pub(crate) tenant: TenantId,
    pub(crate) lb: LbId,
    /// None: it was answered here.
    pub(crate) service: Option<ServiceId>,
}

/// One request, when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) status: u16,
    pub(crate) tries: u8,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) took: Duration,
}

/// The names that stand for a [`Whose`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    tenant: String,
    lb: String,
    service: String,
}

#[derive(Clone, Debug, Default)]
struct Numbers {
    names: Names,
    classes: [u64; CLASSES.len()],
    retries: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// One more than the bounds: what takes longer.
    took: [u64; BOUNDS.len() + 1],
    took_us: u64,
}

impl Numbers {
    fn count(&mut self, passed: &Passed) {
        let class = usize::from(passed.status / 100);
        if let Some(class) = self.classes.get_mut(class) {
            *class += 1;
        }
        self.retries += u64::from(passed.tries.saturating_sub(1));
        self.bytes_in += passed.bytes_in;
        self.bytes_out += passed.bytes_out;
        let took = u64::try_from(passed.took.as_micros()).unwrap_or(u64::MAX);
        self.took_us = self.took_us.saturating_add(took);
        let slot = BOUNDS.partition_point(|bound| *bound < took);
        if let Some(slot) = self.took.get_mut(slot) {
            *slot += 1;
        }
    }

    fn add(&mut self, other: &Numbers) {
        for (sum, more) in self.classes.iter_mut().zip(other.classes) {
            *sum += more;
        }
        for (sum, more) in self.took.iter_mut().zip(other.took) {
            *sum += more;
        }
        self.retries += other.retries;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.took_us = self.took_us.saturating_add(other.took_us);
    }
}

/// The numbers of one worker.
#[derive(Debug)]
pub(crate) struct Traffic {
    own: RefCell<Own>,
    all: All,
}

/// Numbers since they were last added to those of all.
#[derive(Debug, Default)]
struct Own {
    numbers: Vec<(Whose, Numbers)>,
    places: HashMap<Whose, usize>,
    /// Where the last one was counted: mostly the next one is of the same kind.
    last: usize,
}

impl Own {
    fn of(&mut self, whose: Whose, names: impl FnOnce() -> Names) -> Option<&mut Numbers> {
        if self
            .numbers
            .get(self.last)
            .is_none_or(|(last, _)| *last != whose)
        {
            self.last = *self.places.entry(whose).or_insert(self.numbers.len());
            if self.last == self.numbers.len() {
                let numbers = Numbers {
                    names: names(),
                    ..Numbers::default()
                };
                self.numbers.push((whose, numbers));
            }
        }
        let (_, numbers) = self.numbers.get_mut(self.last)?;
        Some(numbers)
    }
}

/// The numbers of all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct All(Arc<Mutex<BTreeMap<Whose, Numbers>>>);

impl All {
    /// Declared once a process.
    pub(crate) fn declare(metrics: &Metrics) -> Self {
        let all = All::default();
        metrics.collect(all.clone());
        all
    }
}

impl Traffic {
    pub(crate) fn new(all: All) -> Self {
        Traffic {
            own: RefCell::default(),
            all,
        }
    }

    /// Count a request. Names are asked for when the first of its kind passes.
    pub(crate) fn count<'n>(
        &self,
        whose: Whose,
        passed: &Passed,
        names: impl FnOnce() -> (&'n str, &'n str, String),
    ) {
        let names = || {
            let (tenant, lb, service) = names();
            Names {
                tenant: tenant.to_owned(),
                lb: lb.to_owned(),
                service,
            }
        };
        if let Some(numbers) = self.own.borrow_mut().of(whose, names) {
            numbers.count(passed);
        }
    }

    /// Add what was counted to the numbers of all.
    pub(crate) fn flush(&self) {
        let own = std::mem::take(&mut *self.own.borrow_mut()).numbers;
        if own.is_empty() {
            return;
        }
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (whose, numbers) in own {
            let fits = all.len() < MAX_SERIES || all.contains_key(&whose);
            if fits {
                let sum = all.entry(whose).or_default();
                sum.names.clone_from(&numbers.names);
                sum.add(&numbers);
            } else {
                all.entry(OTHERS).or_default().add(&numbers);
            }
        }
    }
}

const OTHERS: Whose = Whose {
    tenant: TenantId(0),
    lb: LbId(0),
    service: None,
};

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = |names: &Names| {
            [
                ("tenant", names.tenant.clone()),
                ("lb", names.lb.clone()),
                ("service", names.service.clone()),
            ]
        };
        let name = "lb_requests";
        let help = "Requests, by load balancer, service and class of the answer";
        let mut metric = encoder.encode_descriptor(name, help, None, Kind::Counter)?;
        for numbers in all.values() {
            for (class, count) in CLASSES.iter().zip(numbers.classes) {
                if count > 0 {
                    let [tenant, lb, service] = labels(&numbers.names);
                    let labels = [tenant, lb, service, ("class", (*class).to_owned())];
                    let mut series = metric.encode_family(&labels)?;
                    series.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        type Of = fn(&Numbers) -> u64;
        let sums: [(&str, &str, Of); 3] = [
            ("lb_retries", "Tries after the first", |n| n.retries),
            ("lb_received_bytes", "Bodies from clients", |n| n.bytes_in),
            ("lb_sent_bytes", "Bodies to clients", |n| n.bytes_out),
        ];
        for (name, help, of) in sums {
            let mut metric = encoder.encode_descriptor(name, help, None, Kind::Counter)?;
            for numbers in all.values() {
                let labels = labels(&numbers.names);
                let mut series = metric.encode_family(&labels)?;
                series.encode_counter::<NoLabelSet, _, u64>(&of(numbers), None)?;
            }
        }
        let name = "lb_request_seconds";
        let help = "From the head of a request to the last octet of its answer";
        let mut metric = encoder.encode_descriptor(name, help, None, Kind::Histogram)?;
        for numbers in all.values() {
            let bounds = BOUNDS.iter().map(|bound| seconds(*bound));
            let bounds = bounds.chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(numbers.took).collect();
            let count = numbers.took.iter().sum();
            let labels = labels(&numbers.names);
            let mut series = metric.encode_family(&labels)?;
            series.encode_histogram::<NoLabelSet>(
                seconds(numbers.took_us),
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody looks at the microseconds of years"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_workers_add_up() {
        let metrics = Metrics::default();
        let all = All::declare(&metrics);
        let workers = [Traffic::new(all.clone()), Traffic::new(all)];
        let whose = Whose {
            tenant: TenantId(1),
            lb: LbId(2),
            service: Some(ServiceId(3)),
        };
        for (worker, status, ms) in [(0, 200, 1), (0, 503, 4), (1, 200, 20_000), (1, 0, 3)] {
            let passed = Passed {
                status,
                tries: 2,
                bytes_in: 1,
                bytes_out: 10,
                took: Duration::from_millis(ms),
            };
            let names = || ("acme", "shop/web", "cart.shop.acme".to_owned());
            workers[worker].count(whose, &passed, names);
        }
        assert!(!metrics.render().contains("acme"), "not yet");
        workers.iter().for_each(Traffic::flush);
        workers.iter().for_each(Traffic::flush);
        let text = metrics.render();
        let of = "tenant=\"acme\",lb=\"shop/web\",service=\"cart.shop.acme\"";
        for line in [
            format!("sealane_lb_requests_total{{{of},class=\"2xx\"}} 2"),
            format!("sealane_lb_requests_total{{{of},class=\"5xx\"}} 1"),
            format!("sealane_lb_requests_total{{{of},class=\"none\"}} 1"),
            format!("sealane_lb_retries_total{{{of}}} 4"),
            format!("sealane_lb_sent_bytes_total{{{of}}} 40"),
            format!("sealane_lb_request_seconds_count{{{of}}} 4"),
            format!("sealane_lb_request_seconds_bucket{{le=\"0.001\",{of}}} 1"),
            format!("sealane_lb_request_seconds_bucket{{le=\"0.005\",{of}}} 3"),
            format!("sealane_lb_request_seconds_bucket{{le=\"10.0\",{of}}} 3"),
            format!("sealane_lb_request_seconds_bucket{{le=\"+Inf\",{of}}} 4"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
