//! The fleet's end: no process of it is left.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Fleet, Process, process, processes_of};

impl Fleet {
    /// Ends every process of the fleet and waits until none is left.
    pub fn sweep(&mut self) {
        for round in 0..200 {
            let left = processes_of(&self.dir);
            if left.is_empty() {
                return;
            }
            for pid in left {
                process::kill(pid);
            }
            for child in self.children() {
                child.reap();
            }
            if round > 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn children(&mut self) -> impl Iterator<Item = &mut Process> {
        let hosts = self.hosts.iter_mut().flat_map(|host| [host.gate.as_mut(), host.agent.as_mut()]).flatten();
        hosts.chain(self.coordinators.iter_mut()).chain(self.etcd.iter_mut())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The logs are what a failure is read by, and its error names them; FLEET_KEEP=1 keeps those of successes too.
        let failed = std::thread::panicking() || self.failed.load(Ordering::Relaxed);
        let keep = failed || std::env::var_os("FLEET_KEEP").is_some();
        if let Some(temporary) = self._temporary.take_if(|_| keep) {
            eprintln!("the fleet's logs are kept in {}", temporary.keep().display());
        }
        if !self.keep {
            self.sweep();
        }
    }
}
