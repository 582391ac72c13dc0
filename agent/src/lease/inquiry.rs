//! Questions that the keeper asks around: the members' versions, and a lost holder's agent for a certificate.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use handover_proto::ids::AgentId;
use handover_proto::keys::{EnvKeys, ServiceKeys};
use handover_proto::lease::StopProof;
use handover_proto::numbers::Token;
use handover_proto::peer::Role;
use handover_proto::registration::Registration;
use handover_proto::stored::decode;
use handover_proto::wire::agent_client::AgentClient;
use handover_proto::wire::{CertifyReply, CertifyRequest};
use handover_store::client::Store;
use handover_tls::Parties;

use super::certificate::Certificate;
use super::versions::Survey;

/// Longest question for a certificate, the look for the agent's address included. The answer takes one sync of a file.
const LIMIT: Duration = Duration::from_secs(1);

/// Asks every member for its version, the cluster for its members, and the store for the guard key.
pub(crate) async fn survey(store: &Store, env: &EnvKeys) -> Survey {
    let key = env.guard();
    let (answers, members, guard) = tokio::join!(store.status(), store.member_ids(), store.get(&key));
    let mut survey = Survey {
        members: members.ok().map(BTreeSet::from_iter),
        guarded: guard.ok().map(|guard| guard.is_some()),
        ..Survey::default()
    };
    for (endpoint, answer) in answers {
        match answer {
            Ok(status) => {
                survey.embedded |= status.is_embedded();
                survey.versions.insert(status.member_id, status.version);
            }
            Err(error) => tracing::warn!(endpoint, error = %error, "a store member did not say its version"),
        }
    }
    survey
}

/// Asks `agent` whether its service has stopped under `token`.
///
/// # Errors
/// One sentence: it cannot be found or reached, or it does not certify that.
pub(super) async fn certificate(
    (store, parties): (&Store, &Parties),
    service: &ServiceKeys,
    agent: &AgentId,
    token: Token,
) -> Result<Certificate, String> {
    let asked = async {
        let address = address(store, service, agent).await?;
        ask(parties, agent, address, token).await.map_err(|reason| format!("agent {agent} at {address}: {reason}"))
    };
    let answer = tokio::time::timeout(LIMIT, asked).await;
    let reply = answer.map_err(|_| format!("agent {agent} gave no answer within {LIMIT:?}"))??;
    read(&reply, agent, token)
}

async fn address(store: &Store, service: &ServiceKeys, agent: &AgentId) -> Result<SocketAddr, String> {
    let key = service.agent(agent);
    let entry = store.get(&key).await.map_err(|error| error.to_string())?;
    let entry = entry.ok_or_else(|| format!("agent {agent} is not registered"))?;
    let registration: Registration = decode(&key, &entry.value).map_err(|error| error.to_string())?;
    Ok(registration.endpoint)
}

async fn ask(parties: &Parties, agent: &AgentId, address: SocketAddr, token: Token) -> Result<CertifyReply, String> {
    let endpoint = parties.endpoint(&address.to_string()).map_err(|error| error.to_string())?;
    let channel = parties.connect(endpoint, Role::Agent(agent.clone()), LIMIT).await;
    let channel = channel.map_err(|error| crate::report::chain(&error))?;
    let question = CertifyRequest { token: token.get() };
    let reply = AgentClient::new(channel).certify(question).await.map_err(|status| status.message().to_owned())?;
    Ok(reply.into_inner())
}

/// An answer counts only if it is this agent's and about this token.
fn read(reply: &CertifyReply, agent: &AgentId, token: Token) -> Result<Certificate, String> {
    if reply.agent != agent.as_str() || reply.token != token.get() {
        return Err(format!("asked {agent} about {token}, answered {} about {}", reply.agent, reply.token));
    }
    let proof = match (reply.stopped, reply.proof.as_str()) {
        (true, "quiesced") => StopProof::Quiesced,
        (true, "dead") => StopProof::Dead,
        (true, other) => return Err(format!("agent {agent} gives an unknown proof, {other:?}")),
        (false, _) => return Err(format!("agent {agent} does not certify that: {}", reply.reason)),
    };
    let stopped_at_ms = Some(reply.stopped_at_ms).filter(|ms| *ms > 0);
    Ok(Certificate { token, proof, stopped_at_ms, may_return: reply.may_return })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> CertifyReply {
        CertifyReply {
            agent: "app-01".into(),
            token: 48,
            stopped: true,
            proof: "dead".into(),
            reason: String::new(),
            stopped_at_ms: 5,
            may_return: false,
        }
    }

    fn judged(reply: &CertifyReply) -> Result<Certificate, String> {
        read(reply, &"app-01".parse().expect("a name"), Token::from_wire(48))
    }

    #[test]
    fn only_an_answer_of_the_right_agent_about_the_right_token_is_a_certificate() {
        let certificate = judged(&reply()).expect("a certificate");
        assert_eq!((certificate.proof, certificate.stopped_at_ms), (StopProof::Dead, Some(5)));
        let spoils: [fn(&mut CertifyReply); 4] = [
            |reply| reply.agent = "app-02".into(),
            |reply| reply.token = 49,
            |reply| reply.stopped = false,
            |reply| reply.proof = "operator".into(),
        ];
        for spoil in spoils {
            let mut bad = reply();
            spoil(&mut bad);
            judged(&bad).expect_err("no certificate");
        }
    }
}
