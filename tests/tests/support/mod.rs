//! What the process tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use handover_tests::clock::BootNs;
use handover_tests::fleet::{Fleet, Options, Spec, StoreKind};
use handover_tests::load::Load;
use handover_tests::receipt::verdict::Expect;
use handover_tests::receipt::{Evidence, Receipt};

/// A real etcd, if there is one.
#[allow(dead_code, reason = "not every test binary runs on etcd")]
pub(crate) fn etcd() -> Option<StoreKind> {
    match std::env::var_os("HANDOVER_TEST_ETCD") {
        Some(program) => Some(StoreKind::Etcd(program.into())),
        None => {
            eprintln!("SKIPPED on real etcd: HANDOVER_TEST_ETCD does not name one (tests/run sets it)");
            None
        }
    }
}

/// A fleet that serves 1.0.0, with 1.1.0 and a bad 1.2.0 installed.
pub(crate) fn serving(options: Options) -> Fleet {
    let fleet = Fleet::start(options).expect("a fleet");
    fleet.install("1.0.0", "").expect("installed");
    fleet.install("1.1.0", "").expect("installed");
    fleet.install("1.2.0", "bad-after-requests = 50").expect("installed");
    let outcome = fleet.cli().roll(&Spec::to("1.0.0")).expect("a command");
    assert_eq!(outcome.code, 0, "bring-up: {}{}", outcome.out, outcome.err);
    fleet
        .wait_for("the scheduler lease to be held", |fleet| Ok(fleet.cli().status()?["lease"]["state"] == "held"))
        .expect("held");
    fleet
}

/// No process test takes the lease from a lost host: whatever else happens to it is over in this time, also on a busy
/// machine. The quarantine alone would take 11 s.
const DARK: Duration = Duration::from_secs(5);

/// What the run cost.
pub(crate) fn receipt(fleet: &Fleet, load: Load) -> Receipt {
    let until = BootNs::now();
    let load = load.stop().expect("the load's numbers");
    let evidence = Evidence { ledger: fleet.ledger(), activity: vec![fleet.activity()], until };
    Receipt::draw_up(load, &evidence, &Expect { service_faults: true, longest_dark: Some(DARK), ..Expect::default() })
        .expect("a receipt")
}

/// The receipt for people.
pub(crate) fn table(receipt: &Receipt) -> String {
    receipt.to_string()
}
