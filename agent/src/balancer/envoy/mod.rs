//! Envoy over a file of endpoints (EDS): written whole, renamed into place, followed by Envoy with inotify.
//!
//! One agent writes one file for one cluster of one Envoy. Nobody else may write it: where Envoy is in front of several
//! hosts, it asks their `/ready` instead (`docs/balancers/envoy.md`).

mod file;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use handover_proto::blocker::BlockerKind;
use sha2::{Digest, Sha256};

use super::post::Post;
use super::settings::EnvoySettings;
use crate::core::front::{BalancerSeen, Target, Wishes};
use crate::core::next::Waiting;

/// The file is looked at this often: what somebody deleted or changed is written again.
const LOOK: Duration = Duration::from_secs(1);

/// One cluster of one Envoy.
pub(super) struct Envoy {
    settings: EnvoySettings,
    addresses: BTreeMap<Target, SocketAddr>,
}

impl Envoy {
    pub(super) fn new(settings: EnvoySettings, addresses: BTreeMap<Target, SocketAddr>) -> Self {
        Self { settings, addresses }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        format!("envoy {} {}", self.settings.path.display(), self.settings.cluster)
    }

    /// Keeps the file as it is to be, for ever.
    pub(super) async fn keep(self, mut post: Post) {
        let mut since = None;
        loop {
            let wishes = post.take();
            let seen = wishes.map(|wishes| self.lap(wishes, &mut since));
            let time = seen.as_ref().map_or(LOOK, |seen| if seen.trouble.is_some() { LOOK / 10 } else { LOOK });
            if let Some(seen) = seen {
                post.say(seen);
            }
            if !post.rest(time).await {
                return;
            }
        }
    }

    fn lap(&self, wishes: Wishes, since: &mut Option<Duration>) -> BalancerSeen {
        let waits = |sentence| {
            let trouble = Some(Waiting { kind: BlockerKind::BalancerNotConfirmed, sentence });
            BalancerSeen { name: self.name(), confirmed: None, trouble }
        };
        match self.write(&wishes) {
            Ok(true) => *since = Some(crate::clock::boot()),
            Ok(false) => {}
            Err(error) => return waits(format!("{}: its file cannot be written: {error}", self.name())),
        }
        // An agent that starts does not know for how long the file has been so.
        let since = *since.get_or_insert_with(crate::clock::boot);
        if crate::clock::boot() < since + self.settings.settle {
            return waits(format!("{} to follow its file", self.name()));
        }
        BalancerSeen { name: self.name(), confirmed: Some(wishes), trouble: None }
    }

    /// Whether the file had to be written.
    fn write(&self, wishes: &Wishes) -> io::Result<bool> {
        let content = file::content(&self.settings.cluster, wishes, &self.addresses);
        // Envoy takes a file with the version that it has for the same.
        let version: String = Sha256::digest(&content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let text = file::versioned(&content, &version);
        if fs::read_to_string(&self.settings.path).is_ok_and(|found| found == text) {
            return Ok(false);
        }
        replace(&self.settings.path, &text)?;
        Ok(true)
    }
}

/// Aside and renamed: Envoy reads the whole old file or the whole new one, and sees only the rename.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    fs::write(&aside, text)?;
    fs::rename(&aside, path)
}
