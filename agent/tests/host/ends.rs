//! How an end is judged.

use handover_agent::driver::{CommandEnd, Exit, ExitStatus};

use crate::site::Site;

#[tokio::test]
async fn a_crash_of_which_something_is_left_is_a_crash_however_often_that_is_told() {
    let mut site = Site::new().await;
    assert_eq!(site.host.act(&Site::start()), None);
    let instance = site.running().record.instance.clone();
    let status = ExitStatus::Command(CommandEnd::Stopped);
    let exit = |left: Option<&str>| Exit {
        instance: instance.clone(),
        status,
        left: left.map(str::to_owned),
        proven: false,
        tail: vec![],
    };
    for left in [Some("processes [7, 8] are still there"), Some("processes [8] are still there"), None] {
        assert!(site.place().crashes.is_none() && site.place().running.is_some(), "not before it has ended wholly");
        assert_eq!(site.host.exited(&exit(left)), None);
    }
    assert_eq!(site.place().crashes.as_ref().map(|crashes| crashes.count), Some(1));
    assert!(site.place().last_exit.as_ref().is_some_and(|exit| !exit.wanted), "nobody told it to stop");
}
