//! Balancers that cannot be asked: they are known to have acted once they have had the time.

use std::time::Duration;

use handover_proto::blocker::BlockerKind;

use super::post::Post;
use crate::core::front::BalancerSeen;
use crate::core::next::Waiting;

/// Those that ask `/ready`.
pub(super) const READINESS: &str = "readiness";
/// There is nothing to look at; a change wakes it.
const LONG: Duration = Duration::from_secs(3600);

/// Confirms each change after this time.
pub(super) async fn wait(settle: Duration, mut post: Post) {
    loop {
        let wishes = post.take();
        if wishes.is_some() {
            let time = crate::duration::render(settle);
            let sentence = format!("balancers that ask /ready to act on its answer, within {time}");
            let trouble = Some(Waiting { kind: BlockerKind::BalancerNotConfirmed, sentence });
            post.say(BalancerSeen { name: READINESS.into(), confirmed: None, trouble });
            tokio::select! {
                goes_on = post.changed() => {
                    if !goes_on {
                        return;
                    }
                    continue;
                }
                () = tokio::time::sleep(settle) => {}
            }
            post.say(BalancerSeen { name: READINESS.into(), confirmed: wishes, trouble: None });
        }
        if !post.rest(LONG).await {
            return;
        }
    }
}
