//! What a service's acknowledgement proves, and what not.

use super::deadline::Boot;
use super::local::{Call, Local};
use super::record::{Ack, AckState, RECORD_VERSION, token_text};
use super::state::Order;
use super::upkeep::REST;

/// Takes in the answer to the call with number `seq`. One to an older call proves nothing: what was told since may have
/// overtaken it.
pub(super) fn took_in(local: &mut Local, seq: u64, result: Result<Ack, String>, now: Boot) {
    let service = &mut local.service;
    let Some(call) = service.call.take_if(|call| call.seq == seq) else { return };
    let outcome = result.and_then(|ack| {
        service.pulse.answered(&ack, now);
        service.declares(&ack);
        judge(&call, &ack).map(|()| ack.state)
    });
    match outcome {
        Ok(state) => {
            service.answered = seq;
            service.trouble = None;
            match state {
                AckState::Started => service.started = call.token,
                // Told ACTIVE since, it may work again.
                AckState::Quiesced => {
                    service.idle = service.order != Order::Active;
                    local.stopped_since = local.stopped_since.or(Some(now)).filter(|_| local.service.idle);
                }
                AckState::Failed => {}
            }
        }
        Err(trouble) => {
            service.trouble = Some(trouble);
            service.not_before = now.plus(REST);
        }
    }
}

/// Whether the answer says that what was told has been done, by this token and number.
fn judge(call: &Call, ack: &Ack) -> Result<(), String> {
    let token = token_text(call.token);
    if ack.v != RECORD_VERSION {
        return Err(format!("the service answered in version {}, not {RECORD_VERSION}", ack.v));
    }
    if ack.token != token || ack.seq != call.seq {
        let text = |token: &Option<String>, seq| format!("{}, {seq}", token.as_deref().unwrap_or("none"));
        let (asked, answered) = (text(&token, call.seq), text(&ack.token, ack.seq));
        return Err(format!("the service answered for token and number {answered} instead of {asked}"));
    }
    let wanted = match call.order {
        Order::Active => AckState::Started,
        Order::Stopped | Order::Quiesce(_) | Order::Fenced => AckState::Quiesced,
        Order::Unknown => return Err("the service answered a call that is never made".to_owned()),
    };
    if ack.state == wanted {
        return Ok(());
    }
    let detail = if ack.detail.is_empty() { "no detail" } else { &ack.detail };
    Err(format!("the service answered {:?} with {} units under way: {detail}", ack.state, ack.in_flight))
}
