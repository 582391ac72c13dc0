//! What a reader of `GET /v1/lease` asks for, from the query's text. Pure.

use std::time::Duration;

use handover_proto::ids::InstanceId;

/// Longest wait for a newer record. Whoever waits longer would rather have a stream.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// How the record is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// As it is now.
    Now,
    /// As soon as its number is above this one; after the wait, as it is then.
    Newer {
        /// The number that the reader has.
        than: u64,
        /// How long to wait.
        wait: Duration,
    },
    /// Now and at every change, one a line.
    Stream,
}

/// A query that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// No instance, or one that is none.
    #[error("name the instance: GET /v1/lease?instance=ID, 16 hexadecimal digits")]
    Instance,
    /// A number that is none.
    #[error("seq={0} is not the number of a record; give the `seq` of the record that you have")]
    Seq(String),
    /// A wait without unit, or too long a one.
    #[error("wait={0} is not a time up to {MAX_WAIT:?}; write it like wait=30s")]
    Wait(String),
    /// A wait for nothing.
    #[error(
        "wait= needs seq=, the number of the record that you have: the answer comes as soon as there is a newer one"
    )]
    WaitWithoutSeq,
    /// A word that is none of ours.
    #[error("{0} is not understood; known are instance=, seq= with wait=, and stream=1")]
    Unknown(String),
}

/// Reads the query of `GET /v1/lease`.
///
/// # Errors
/// [`BadQuestion`], with what would be understood.
pub fn parse(query: &str) -> Result<(InstanceId, Question), BadQuestion> {
    let (mut instance, mut seq, mut wait, mut stream) = (None, None, None, false);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("instance", id)) => instance = Some(id.parse().map_err(|_| BadQuestion::Instance)?),
            Some(("seq", number)) => seq = Some(number.parse().map_err(|_| BadQuestion::Seq(number.to_owned()))?),
            Some(("wait", text)) => wait = Some(span(text)?),
            Some(("stream", "1")) => stream = true,
            _ => return Err(BadQuestion::Unknown(pair.to_owned())),
        }
    }
    let instance = instance.ok_or(BadQuestion::Instance)?;
    match (stream, seq, wait) {
        (true, _, None) => Ok((instance, Question::Stream)),
        (true, _, Some(_)) => Err(BadQuestion::Unknown("wait= together with stream=1".to_owned())),
        (false, Some(than), Some(wait)) => Ok((instance, Question::Newer { than, wait })),
        (false, None, Some(_)) => Err(BadQuestion::WaitWithoutSeq),
        (false, _, None) => Ok((instance, Question::Now)),
    }
}

fn span(text: &str) -> Result<Duration, BadQuestion> {
    let span = crate::duration::parse(text).ok().filter(|span| *span <= MAX_WAIT);
    span.ok_or_else(|| BadQuestion::Wait(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000000000aa";

    fn ask(rest: &str) -> Result<Question, BadQuestion> {
        parse(&format!("instance={ID}{rest}")).map(|(_, question)| question)
    }

    #[test]
    fn the_three_ways_to_ask_are_told_apart() {
        assert_eq!(ask(""), Ok(Question::Now));
        assert_eq!(ask("&seq=7"), Ok(Question::Now), "without a wait there is nothing to wait for");
        assert_eq!(ask("&seq=7&wait=30s"), Ok(Question::Newer { than: 7, wait: Duration::from_secs(30) }));
        assert_eq!(ask("&stream=1"), Ok(Question::Stream));
    }

    #[test]
    fn a_wait_beyond_the_limit_is_refused_and_the_limit_itself_is_not() {
        assert_eq!(ask("&seq=7&wait=60s"), Ok(Question::Newer { than: 7, wait: MAX_WAIT }));
        let error = ask("&seq=7&wait=61s").expect_err("too long").to_string();
        assert!(error.contains("61s") && error.contains("60s"), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let cases = [
            ("&seq=x&wait=1s", BadQuestion::Seq("x".into())),
            ("&seq=1&wait=30", BadQuestion::Wait("30".into())),
            ("&wait=30s", BadQuestion::WaitWithoutSeq),
            ("&sequence=1", BadQuestion::Unknown("sequence=1".into())),
            ("&stream=yes", BadQuestion::Unknown("stream=yes".into())),
        ];
        for (query, error) in cases {
            assert_eq!(ask(query), Err(error), "{query}");
        }
        assert_eq!(parse("stream=1"), Err(BadQuestion::Instance));
        assert_eq!(parse("instance=no-such-form"), Err(BadQuestion::Instance));
    }
}
