//! CPU and memory of a daemon, from `/proc`.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};

use crate::clock::Deadline;

/// Ticks a second in `/proc/PID/stat`; Linux shows 100 on every architecture that matters here.
const TICKS_S: f64 = 100.0;

/// A process and what it has started.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The process.
    pub pid: u32,
}

impl Family {
    /// This program.
    pub fn this() -> Family {
        Family {
            pid: std::process::id(),
        }
    }

    fn members(self) -> Vec<u32> {
        let mut all = vec![self.pid];
        let mut next = 0;
        while let Some(&pid) = all.get(next) {
            next += 1;
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
                continue;
            };
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                all.extend(children.split_whitespace().flat_map(str::parse::<u32>));
            }
        }
        all
    }

    /// User and system time of all threads of all members, in ticks.
    fn ticks(self) -> Result<u64> {
        self.members().into_iter().map(ticks_of).sum()
    }

    /// User and system time of the first process, in seconds.
    pub fn alone_cpu_s(self) -> Result<f64> {
        Ok(ticks_of(self.pid)? as f64 / TICKS_S)
    }

    /// User and system time of all threads of all members, in seconds.
    pub fn cpu_s(self) -> Result<f64> {
        Ok(self.ticks()? as f64 / TICKS_S)
    }

    /// Proportional set size of all members, in bytes.
    pub fn pss(self) -> Result<f64> {
        let mut sum = 0;
        for pid in self.members() {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .with_context(|| format!("memory of process {pid}"))?;
            sum += pss_kib(&text).with_context(|| format!("/proc/{pid}/smaps_rollup"))?;
        }
        Ok(sum as f64 * 1024.0)
    }

    /// Waits until the daemon has used no more than one tick in half a second, at most 15 s.
    pub fn settle(self) -> Result<()> {
        let deadline = Deadline::after(Duration::from_secs(15));
        let mut before = self.ticks()?;
        while !deadline.passed() {
            thread::sleep(Duration::from_millis(500));
            let after = self.ticks()?;
            if after <= before + 1 {
                break;
            }
            before = after;
        }
        Ok(())
    }
}

fn ticks_of(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    ticks(&stat).with_context(|| format!("/proc/{pid}/stat"))
}

/// `utime` and `stime`: fields 14 and 15, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn pss_kib(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 1 0 9 0 0";
        assert_eq!(ticks(stat), Some(22));
        assert_eq!(ticks("42 (a) S 1"), None);
    }

    #[test]
    fn pss_is_found() {
        assert_eq!(
            pss_kib("Rss: 1 kB\nPss:   1234 kB\nPss_Dirty: 5 kB\n"),
            Some(1234)
        );
        assert_eq!(pss_kib("Rss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let us = Family::this();
        assert!(us.pss().expect("memory") > 1e5);
        assert!(us.cpu_s().expect("CPU") >= 0.0);
    }
}
