//! `handover doctor`: what a human should look at.

use handover_proto::wire::{DoctorReply, DoctorRequest, Finding, verdict};

use super::commands::Session;
use super::fallback;
use super::outcome::{CliError, Outcome};

impl Session {
    /// `handover doctor`; from the store alone if no coordinator answers.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn doctor(&self) -> Result<Outcome, CliError> {
        let request = DoctorRequest { service: self.global().service_name() };
        let reply = self.coordinators().read(|mut c| {
            let request = request.clone();
            async move { c.doctor(request).await }
        });
        let reply = match reply.await {
            Err(CliError::NoCoordinator { addresses, .. }) => {
                fallback::doctor(self.global(), addresses, &request).await?
            }
            other => other?,
        };
        self.out().answers(&reply.findings, &text(&reply))?;
        Ok(outcome(&reply))
    }
}

/// Whatever fails needs a human; a warning can wait for one.
fn outcome(reply: &DoctorReply) -> Outcome {
    let fails = reply.findings.iter().any(|finding| finding.verdict == verdict::FAIL);
    if fails { Outcome::Failed } else { Outcome::Done }
}

fn text(reply: &DoctorReply) -> Vec<String> {
    let several = reply.findings.iter().map(|finding| finding.service.as_str()).filter(|name| !name.is_empty());
    let several = several.collect::<std::collections::BTreeSet<_>>().len() > 1;
    reply.findings.iter().flat_map(|finding| lines(finding, several)).collect()
}

fn lines(finding: &Finding, several: bool) -> Vec<String> {
    let Finding { check, verdict, sentence, fix, service } = finding;
    let whose = if several && !service.is_empty() { format!("{service}: ") } else { String::new() };
    let mut lines = vec![format!("{verdict:<4}  {check:<11}  {whose}{sentence}")];
    if !fix.is_empty() {
        lines.push(format!("{:19}fix: {fix}", ""));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: &str, service: &str) -> Finding {
        let fix = if verdict == verdict::OK { "" } else { "mend it" };
        let (check, sentence) = ("lease".to_owned(), "as it is".to_owned());
        Finding { check, verdict: verdict.into(), sentence, fix: fix.into(), service: service.into() }
    }

    fn reply(findings: Vec<Finding>) -> DoctorReply {
        DoctorReply { findings, at_ms: 0 }
    }

    #[test]
    fn only_a_failure_needs_a_human_at_once() {
        let (good, warning, bad) = (finding("ok", ""), finding("warn", ""), finding("fail", ""));
        assert_eq!(outcome(&reply(vec![good.clone(), warning])), Outcome::Done);
        assert_eq!(outcome(&reply(vec![good, bad])), Outcome::Failed);
    }

    #[test]
    fn a_fix_stands_below_and_services_are_named_where_there_are_several() {
        let one = text(&reply(vec![finding("ok", "billing"), finding("warn", "billing")]));
        assert_eq!(
            one,
            ["ok    lease        as it is", "warn  lease        as it is", "                   fix: mend it"]
        );
        let two = text(&reply(vec![finding("ok", ""), finding("ok", "billing"), finding("ok", "orders")]));
        assert_eq!(two[2], "ok    lease        orders: as it is");
    }
}
