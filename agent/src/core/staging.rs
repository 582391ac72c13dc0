//! What to do about the version that is to be in place ahead of its window. One staging at a time; what serves is not
//! looked at.

use handover_proto::ids::{AgentId, Version};
use handover_proto::numbers::Serial;
use handover_proto::staging::StagingRequest;

/// What the staging at work is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtWork {
    /// Which version.
    pub version: Version,
    /// It was told to stop, and has not yet.
    pub stopping: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Stage this version.
    Begin(Version),
    /// Stop what is at work; then look again.
    Stop,
}

/// What is asked of this agent: which version, and by which request.
pub fn asked<'a>(request: Option<&'a (Serial, StagingRequest)>, me: &AgentId) -> Option<(Serial, &'a Version)> {
    let (serial, request) = request.filter(|(_, request)| request.hosts.contains(me))?;
    Some((*serial, &request.version))
}

/// Decides. `answered` is the request whose end is known: each one is carried out once, so that a refusal stands until
/// somebody asks again. After a restore of the store a serial comes again, so that it takes the version, too.
pub fn next(asked: Option<(Serial, &Version)>, at_work: Option<&AtWork>, answered: Option<(Serial, &Version)>) -> Step {
    match (at_work, asked) {
        (None, Some((serial, version))) if answered != Some((serial, version)) => Step::Begin(version.clone()),
        (None, Some(_) | None) => Step::Rest,
        // Another request for the same version is served by what is on its way.
        (Some(work), Some((_, version))) if work.version == *version && !work.stopping => Step::Rest,
        (Some(work), Some(_) | None) if work.stopping => Step::Rest,
        (Some(_), Some(_) | None) => Step::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_proto::assignment::Cause;
    use handover_proto::numbers::Term;
    use handover_proto::stored::{Rest, STORED_VERSION};

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    fn at_work(text: &str) -> AtWork {
        AtWork { version: version(text), stopping: false }
    }

    #[test]
    fn only_the_hosts_that_are_named_are_asked() {
        let me: AgentId = "app-01".parse().expect("a name");
        let request = StagingRequest {
            v: STORED_VERSION,
            term: Term::default(),
            cause: Cause { rollout: None, step: 1, plan_hash: String::new() },
            version: version("1.5.0"),
            hosts: [me.clone()].into(),
            rest: Rest::new(),
        };
        let seen = Some((Serial(7), request));
        assert_eq!(asked(seen.as_ref(), &me), Some((Serial(7), &version("1.5.0"))));
        assert_eq!(asked(seen.as_ref(), &"app-02".parse().expect("a name")), None);
        assert_eq!(asked(None, &me), None);
    }

    #[test]
    fn each_request_is_carried_out_once() {
        let wanted = version("1.5.0");
        let begin = Step::Begin(wanted.clone());
        assert_eq!(next(Some((Serial(7), &wanted)), None, None), begin);
        let answered = Some((Serial(7), &wanted));
        assert_eq!(next(answered, None, answered), Step::Rest);
        assert_eq!(next(Some((Serial(9), &wanted)), None, answered), begin, "somebody asks again");
        assert_eq!(next(None, None, answered), Step::Rest);
        let before = version("1.4.0");
        assert_eq!(next(Some((Serial(7), &wanted)), None, Some((Serial(7), &before))), begin, "of a restored store");
    }

    #[test]
    fn what_is_on_its_way_goes_on_for_another_request_and_stops_for_another_version() {
        let wanted = version("1.5.0");
        assert_eq!(next(Some((Serial(9), &wanted)), Some(&at_work("1.5.0")), None), Step::Rest);
        assert_eq!(next(Some((Serial(9), &wanted)), Some(&at_work("1.6.0")), None), Step::Stop);
        assert_eq!(next(None, Some(&at_work("1.6.0")), None), Step::Stop);
    }

    #[test]
    fn nothing_begins_before_what_was_stopped_has_ended() {
        let wanted = version("1.5.0");
        for was in ["1.5.0", "1.6.0"] {
            let stopping = AtWork { stopping: true, ..at_work(was) };
            assert_eq!(next(Some((Serial(9), &wanted)), Some(&stopping), None), Step::Rest, "{was}");
        }
    }
}
