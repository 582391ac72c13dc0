//! What is not verified is not started.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use handover_agent::artifact::stage::stage;
use handover_agent::core::next::Effect;
use handover_agent::driver::{Driver, Opening, Owner, Told};
use handover_agent::host::Host;
use handover_agent::state::StateFile;
use handover_proto::ids::SlotId;
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc};

use crate::site::{Site, version};

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// One driver per process is the rule, and all tests of a binary share one process.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Agent {
    host: Host,
    driver: Arc<Driver>,
    told: mpsc::Receiver<Told>,
    wake: Arc<Notify>,
    _alone: MutexGuard<'static, ()>,
}

impl Agent {
    async fn on(site: &Site, artifact: &str) -> Self {
        let alone = ALONE.lock().await;
        let config = Arc::new(site.config(artifact));
        let wake = Arc::new(Notify::new());
        let owner = Owner {
            env: config.env.clone(),
            service: config.service.clone(),
            agent: config.agent.clone(),
            state_dir: config.state_dir.clone(),
        };
        let opening = Opening {
            owner,
            slots: config.slots.keys().cloned().collect(),
            runtime_dir: config.runtime_dir.clone(),
            finish: config.finish(),
            wake: Arc::clone(&wake),
        };
        let (driver, told) = Driver::open(&config.driver, opening).await.expect("a driver");
        let driver = Arc::new(driver);
        let file = StateFile::open(&config.state_dir).expect("a state file");
        let host = Host::take_over(config, Arc::clone(&driver), file, "boot".into(), Arc::clone(&wake)).await;
        Self { host: host.expect("a host"), driver, told, wake, _alone: alone }
    }

    /// Acts as the loop would: again whenever it is woken, until nothing is waited for. Why it could not be started, if not.
    async fn start(&mut self, slot: &str, name: &str) -> Result<(), String> {
        let slot: SlotId = slot.parse().expect("a slot");
        let effect = Effect::Start { slot: slot.clone(), version: version(name) };
        let mut waited = 0;
        while let Some(waiting) = self.host.act(&effect) {
            assert!(waiting.sentence.contains("to be verified"), "{}", waiting.sentence);
            assert!(self.host.places[&slot].running.is_none(), "nothing runs before it is verified");
            tokio::time::timeout(LONG, self.wake.notified()).await.expect("woken");
            waited += 1;
        }
        assert!(waited > 0, "it was verified at all");
        let place = &self.host.places[&slot];
        if let Some(crashes) = &place.crashes {
            return Err(crashes.reason.clone());
        }
        assert!(place.running.is_some(), "it runs");
        Ok(())
    }

    async fn end(mut self) {
        let running = self.host.places.values().filter_map(|place| place.running.as_ref());
        let instances: Vec<_> = running.map(|running| running.record.instance.clone()).collect();
        let mut told = async || tokio::time::timeout(LONG, self.told.recv()).await.expect("told in time");
        for _ in &instances {
            let started = told().await;
            assert!(matches!(started, Some(Told::Started(_))), "{started:?}");
        }
        for instance in &instances {
            self.driver.kill(instance).await.expect("killed");
            let ended = told().await;
            assert!(matches!(ended, Some(Told::Exit(_))), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn a_staged_version_is_started_and_a_changed_one_is_not() {
    let site = Site::new();
    site.publish("1.4.2");
    site.publish("1.5.0");
    let mut agent = Agent::on(&site, &site.copying()).await;
    for name in ["1.4.2", "1.5.0"] {
        stage(&site.config(&site.copying()), &version(name)).await.expect("staged");
    }
    agent.start("a", "1.4.2").await.expect("started");
    assert_eq!(agent.host.file.state.started, [version("1.4.2")]);
    // As root, write protection does not stop anybody.
    let run = site.built("1.5.0").join("run");
    fs::remove_file(&run).and_then(|()| fs::copy(site.built("1.4.2").join("run"), &run)).expect("replaced");
    let reason = agent.start("b", "1.5.0").await.expect_err("changed");
    assert!(reason.contains("run is not as the manifest says: its SHA-256"), "{reason}");
    assert!(agent.host.places[&"b".parse::<SlotId>().expect("b")].last_exit.is_some(), "it is reported");
    assert_eq!(agent.host.file.state.started, [version("1.4.2")], "what was not started did not run last");
    agent.end().await;
}

#[tokio::test]
async fn a_directory_without_manifest_is_not_started_where_a_signature_is_required() {
    let site = Site::new();
    site.publish("1.5.0");
    fs::rename(site.path("published/1.5.0"), site.built("1.5.0")).expect("put there");
    fs::remove_file(site.built("1.5.0").join(handover_artifact::MANIFEST)).expect("removed");
    let mut agent = Agent::on(&site, "").await;
    let reason = agent.start("a", "1.5.0").await.expect_err("nothing vouches for it");
    assert!(reason.contains("handover-manifest.json is missing"), "{reason}");
    drop(agent);
    let mut agent = Agent::on(&site, "require_signature = false").await;
    agent.start("a", "1.5.0").await.expect("started");
    agent.end().await;
}

#[tokio::test]
async fn a_version_that_does_not_go_together_with_what_runs_is_not_started_beside_it() {
    let site = Site::new();
    for (name, ranges) in [("1.3.0", &[][..]), ("1.4.2", &[">=1.3"]), ("1.5.0", &[">=1.4"])] {
        let dir = site.publish(name);
        site.pack(&dir, name, ranges);
        fs::rename(dir, site.built(name)).expect("put there");
    }
    let mut agent = Agent::on(&site, "").await;
    agent.start("a", "1.3.0").await.expect("started");
    let reason = agent.start("b", "1.5.0").await.expect_err("too far apart");
    assert!(reason.contains("1.5.0 cannot run beside 1.3.0") && reason.contains("\">=1.4\""), "{reason}");
    agent.host.places.get_mut(&"b".parse::<SlotId>().expect("b")).expect("b").crashes = None;
    agent.start("b", "1.4.2").await.expect("goes together");
    agent.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_its_directory() {
    let site = Site::new();
    let mut agent = Agent::on(&site, "").await;
    let reason = agent.start("a", "1.5.0").await.expect_err("not there");
    assert!(reason.contains("builds/1.5.0"), "{reason}");
}
