//! A gate that cannot start, or is not to, under a service manager that starts it again at once.

use handover_agent::run::NoGate;

use crate::program::Site;

/// As systemd has it; nobody listens there.
const MANAGED: [(&str, &str); 1] = [("NOTIFY_SOCKET", "@handover-test-nobody")];

#[tokio::test]
async fn without_a_gate_in_the_config_it_ends_with_the_code_that_its_unit_does_not_start_again() {
    let site = Site::new("");
    site.signal_mode();
    let mut gate = site.start_with(&MANAGED);
    assert_eq!(gate.ended().await.code(), Some(i32::from(NoGate::EXIT_CODE)));
    let said = gate.said();
    assert!(said.contains("there is no gate to run") && !said.contains("next try"), "{said}");
    let unit = include_str!("../../../systemd/handover-gate@.service");
    assert!(unit.contains(&format!("\nRestartPreventExitStatus={}\n", NoGate::EXIT_CODE)));
}

#[tokio::test]
async fn a_config_that_cannot_be_read_is_not_tried_again_at_once() {
    let site = Site::new("no-such-setting = 1");
    let mut gate = site.start_with(&MANAGED);
    assert_eq!(gate.ended().await.code(), Some(1));
    let said = gate.said();
    assert!(said.contains("no-such-setting") && said.contains("the next try comes in a second"), "{said}");
}
