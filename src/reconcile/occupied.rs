//! Finds other servers at an address before it is published. An engine in a virtual machine may publish beside
//! a server of this machine without an error, and the port then leads to either of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::Session;
use crate::backoff::pause;
use crate::engine::{SeenRole, is_of_this_machine};
use crate::error::Result;
use crate::model::address::{collide, reachable};
use crate::model::event::Event;
use crate::model::observed::{ContainerState, PortHolder, RunState};
use crate::model::role::Role;
use crate::model::stack::EngineLocation;

/// The time limit of a connection to this machine.
const CONNECT: Duration = Duration::from_millis(500);
/// How long an occupied address is checked again: another run may be starting the container, and engines hold its
/// port before they report it as running.
const STARTING: Duration = Duration::from_secs(1);

impl Session {
    /// The process that accepts connections at the address of a container that does not run.
    ///
    /// # Errors
    /// [`crate::error::Error::Docker`] if the engine does not answer.
    pub(super) async fn process_at(&self, role: Role, seen: &SeenRole) -> Result<Option<PortHolder>> {
        let Some(spec) = self.stack.container(role).filter(|_| self.stack.engine == EngineLocation::Here) else {
            return Ok(None);
        };
        let publish = spec.config.publish;
        let is_here = is_of_this_machine(reachable(publish.ip()));
        if !is_here || seen.port_holder.is_some() || may_hold(&seen.container, publish) {
            return Ok(None);
        }
        let deadline = Instant::now() + STARTING;
        let mut backoff = Duration::from_millis(50);
        loop {
            let accepts = accepts(SocketAddr::new(reachable(publish.ip()), publish.port())).await;
            if !accepts || self.docker()?.holds_address(publish).await? {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                break;
            }
            pause(&mut backoff).await;
        }
        let is_native = self.answers_instead(spec, publish).await;
        Ok(Some(if is_native { PortHolder::Native } else { PortHolder::Process }))
    }

    /// Warns about a server at a port of `[::1]` that is about to be published on IPv4 only: names such as
    /// `localhost` may lead to it.
    pub(super) async fn warn_about_ipv6(&self, role: Role) {
        let Some(spec) = self.stack.container(role).filter(|_| self.stack.engine == EngineLocation::Here) else {
            return;
        };
        let publish = spec.config.publish;
        let is_local = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].map(IpAddr::V4).contains(&publish.ip());
        let other = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), publish.port());
        if is_local && accepts(other).await {
            self.listener.on(Event::Warning(&format!(
                "another server answers at {other}: localhost:{} may lead to it, and 127.0.0.1:{} leads to {}",
                other.port(),
                other.port(),
                role.title()
            )));
        }
    }
}

/// Whether the role's own container may hold an address.
fn may_hold(container: &ContainerState, publish: SocketAddr) -> bool {
    let Some(actual) = container.ours() else { return false };
    let made = actual.published.or_else(|| actual.config.as_ref().map(|made| made.publish));
    matches!(actual.run, RunState::Running | RunState::Paused | RunState::Restarting | RunState::Dead)
        && made.is_none_or(|at| collide(at, publish))
}

/// Whether a server accepts connections at an address. Nothing is sent. A process that forwards the port of an engine
/// closes a connection at once if no server is behind it.
async fn accepts(address: SocketAddr) -> bool {
    let Ok(Ok(mut stream)) = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await else { return false };
    let read = tokio::time::timeout(CONNECT, stream.read_u8()).await;
    // A server waits for a request, or sends its own greeting.
    matches!(read, Err(_) | Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_whose_connections_are_closed_at_once_has_no_server() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(accepts(address).await, "it waits for a request");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        assert!(!accepts(address).await);
    }
}
