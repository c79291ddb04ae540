use std::time::Duration;

use super::refusal;
use crate::rtc::{self, Candidate, Peer};
use crate::session::fragment::{self, Credentials, Fragment};
use crate::session::{Patch, Patched, Refusal};
use saccade_signaling as wire;
use saccade_signaling::ErrorCode;

/// Longest time that the transport may take for all candidates of a fragment.
const CANDIDATES_LIMIT: Duration = Duration::from_secs(2);
/// Longest time that a restart may take.
const RESTART_LIMIT: Duration = Duration::from_secs(10);

/// The ICE session of one peer, as its HTTP resource shows it. The user fragment of this side stands for it: each restart
/// changes that, and nothing else does.
pub(super) struct Ice {
    /// The last offer.
    offer: String,
    tag: String,
}

impl Ice {
    /// After an offer was answered.
    pub(super) fn new(offer: String, answer: &str) -> Self {
        let tag = Credentials::of(answer).map_or_else(String::new, |credentials| credentials.ufrag.to_owned());
        Self { offer, tag }
    }

    /// Trickles candidates or restarts ICE: the fragment's user fragment says which.
    ///
    /// # Errors
    /// As [`Handle::patch`](crate::session::Handle::patch).
    pub(super) async fn patch(&mut self, peer: &dyn Peer, patch: &Patch) -> Result<Patched, Refusal> {
        if !patch.if_match.holds(&self.tag) {
            let message = "The ICE session is another one by now; use the ETag of the last answer.";
            return Err(Refusal::new(ErrorCode::PreconditionFailed, message));
        }
        let fragment = Fragment::parse(&patch.fragment).map_err(|error| {
            let impossible = error == fragment::Error::SeveralTransports;
            said(if impossible { ErrorCode::BadSdp } else { ErrorCode::BadRequest }, &error)
        })?;
        let remote = Credentials::of(&self.offer).ok_or_else(|| impossible("The offer had no ICE credentials."))?;
        if fragment.mids.iter().any(|mid| fragment::mids(&self.offer).all(|offered| offered != mid)) {
            return Err(impossible("The fragment names a media section that was not offered."));
        }
        let next = Credentials {
            ufrag: fragment.ufrag.as_deref().unwrap_or(remote.ufrag),
            pwd: fragment.pwd.as_deref().unwrap_or(remote.pwd),
        };
        if next == remote {
            let ufrag = remote.ufrag.to_owned();
            return within(CANDIDATES_LIMIT, trickle(peer, fragment, &ufrag)).await.map(|()| Patched::Trickled);
        }
        if next.ufrag == remote.ufrag || next.pwd == remote.pwd {
            return Err(impossible("A restart of ICE takes a new ice-ufrag and a new ice-pwd."));
        }
        let offer = next.restart(&self.offer);
        within(RESTART_LIMIT, self.restart(peer, offer, fragment)).await
    }

    async fn restart(&mut self, peer: &dyn Peer, offer: String, fragment: Fragment) -> Result<Patched, Refusal> {
        let answer = peer.renegotiate(&offer).await.map_err(|error| refusal(&error))?;
        // The restart is in force from here on, whatever follows.
        *self = Self::new(offer, &answer.sdp);
        let ufrag = fragment.ufrag.clone().unwrap_or_default();
        if !fragment.candidates.is_empty()
            && let Err(refusal) = trickle(peer, fragment, &ufrag).await
        {
            tracing::debug!(%refusal, "candidates of a restart were not taken");
        }
        let sdp = peer.complete_answer().await.map_err(|error| refusal(&error))?;
        Ok(Patched::Restarted { fragment: fragment::describe(&sdp), tag: self.tag.clone() })
    }
}

/// Hands candidates on. One that the transport cannot use is left out; if it can use none, that is told.
async fn trickle(peer: &dyn Peer, fragment: Fragment, ufrag: &str) -> Result<(), Refusal> {
    let (ends, mut refused, mut taken) = (fragment.ends, false, false);
    for candidate in fragment.into_candidates(ufrag) {
        match peer.add_candidate(Some(from_wire(candidate))).await {
            Ok(()) => taken = true,
            Err(error) => {
                tracing::debug!(%error, "a remote candidate was not taken");
                refused = true;
            }
        }
    }
    if refused && !taken {
        return Err(impossible("None of the candidates can be used here."));
    }
    if ends {
        peer.add_candidate(None).await.map_err(|error| said(ErrorCode::BadSdp, &error))?;
    }
    Ok(())
}

pub(super) fn from_wire(candidate: wire::IceCandidate) -> Candidate {
    Candidate {
        candidate: candidate.candidate,
        sdp_mid: candidate.sdp_mid,
        sdp_m_line_index: candidate.sdp_m_line_index,
        username_fragment: candidate.username_fragment,
    }
}

fn impossible(message: &str) -> Refusal {
    Refusal::new(ErrorCode::BadSdp, message)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let late = || refusal(&rtc::Error::TimedOut);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

/// An error as clients read it.
pub(super) fn said(code: ErrorCode, error: &impl ToString) -> Refusal {
    let mut message = error.to_string();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    message.push('.');
    Refusal::new(code, message)
}

/// A candidate as the wire has it.
pub(super) fn to_wire(candidate: Candidate) -> wire::IceCandidate {
    wire::IceCandidate {
        candidate: candidate.candidate,
        sdp_mid: candidate.sdp_mid,
        sdp_m_line_index: candidate.sdp_m_line_index,
        username_fragment: candidate.username_fragment,
    }
}
