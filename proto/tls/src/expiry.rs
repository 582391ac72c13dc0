//! Alarms before our own certificate expires (`SAFETY.md` F27): the process that needs it says so itself, in its log.

use std::time::{Duration, SystemTime};

use crate::files::Tls;
use crate::validity::{Alarm, Validity, text};

/// Between two looks; certificates live for a day at least.
const LOOK: Duration = Duration::from_secs(600);
/// An alarm that does not change is raised again after so many looks: once a day.
const AGAIN: u32 = 144;

impl Tls {
    /// From when until when our certificate is valid, as the files have it now; none if it does not say so readably.
    pub fn validity(&self) -> Option<Validity> {
        Validity::of(self.material().identity.cert.first()?)
    }

    /// Raises the alarms in the log for as long as it is polled.
    pub async fn warn_of_expiry(self) {
        let (mut raised, mut looks) = (None, 0);
        loop {
            let validity = self.validity();
            let alarm = validity.and_then(|validity| validity.alarm(SystemTime::now()));
            if alarm != raised || looks >= AGAIN {
                (raised, looks) = (alarm, 0);
            }
            if let (Some(alarm), Some(validity), 0) = (alarm, validity, looks) {
                self.raise(alarm, &text(validity.until));
            }
            looks += 1;
            tokio::time::sleep(LOOK).await;
        }
    }

    fn raise(&self, alarm: Alarm, not_after: &str) {
        let files = self.files();
        let (field, file) = (format!("{}cert", files.prefix), files.cert.display());
        match alarm {
            Alarm::Third => {
                tracing::warn!(%field, %file, not_after, "two thirds of the certificate's lifetime are over: renew it; it is read again by itself")
            }
            Alarm::Tenth => {
                tracing::error!(%field, %file, not_after, "the certificate expires soon, and no lease is kept without it: renew it now; it is read again by itself")
            }
            Alarm::Expired => {
                tracing::error!(%field, %file, not_after, "the certificate has expired, so nobody answers us: renew it; it is read again by itself")
            }
        }
    }
}
