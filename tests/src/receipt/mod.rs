//! The receipt: what a run cost, from three witnesses that do not know of each other. The clients (load), the ledger
//! (commits in their order), and the services' activity files (who held the right to schedule, when).
//!
//! Each checker is a plain function over rows (`SAFETY.md` §3.2): [`fence`] is checker 2, [`ticks`] checker 3,
//! [`holders`] checkers 1 and 5, [`writes`] checker 7. Only [`rows`] reads files. [`verdict`] judges, [`table`] prints.

pub mod fence;
pub mod holders;
pub mod rows;
pub mod table;
pub mod ticks;
pub mod verdict;
pub mod writes;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::billing::ledger::LedgerAt;
use crate::clock::BootNs;
use crate::load::tally::LoadReceipt;

use fence::FenceReport;
use holders::HolderReport;
use rows::RowsError;
use ticks::TickReport;
use verdict::{Expect, Verdict};
use writes::WriteReport;

/// Where the witnesses are.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The shared ledger.
    pub ledger: LedgerAt,
    /// The services' activity files.
    pub activity: Vec<PathBuf>,
    /// The end of the run: ticks due by then should have been charged.
    pub until: BootNs,
}

/// Everything that is known about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// Format, 1.
    pub v: u32,
    /// What the clients saw.
    pub load: LoadReceipt,
    /// What became of their writes.
    pub writes: WriteReport,
    /// Whether the fence held.
    pub fence: FenceReport,
    /// Whether every tick was charged once, and when.
    pub ticks: TickReport,
    /// Who held the right to schedule.
    pub holders: HolderReport,
    /// Passed, or why not.
    pub verdict: Verdict,
}

impl Receipt {
    /// Reads the evidence and judges it.
    ///
    /// # Errors
    /// When ledger or activity files cannot be read: no evidence is not a pass.
    pub fn draw_up(load: LoadReceipt, evidence: &Evidence, expect: &Expect) -> Result<Self, RowsError> {
        let ledger = rows::ledger(&evidence.ledger)?;
        let paths: Vec<&Path> = evidence.activity.iter().map(PathBuf::as_path).collect();
        let activity = rows::activity(&paths)?;
        let writes = writes::check(&load, &ledger.payments);
        let fence = fence::check(&ledger.commits);
        let ticks = ticks::check(&ledger.commits, ledger.schedule, evidence.until);
        let holders = holders::check(&holders::intervals(&activity), &activity);
        let verdict = verdict::judge(&load, &writes, &fence, &ticks, &holders, expect);
        Ok(Self { v: 1, load, writes, fence, ticks, holders, verdict })
    }
}
