//! Forwards a port of this machine to an address as seen from inside a container's network.
//!
//! A short-lived container from an existing image joins that network, and exits by itself if this
//! run does not remove it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::transport::for_stream;
use super::{Docker, labels};
use crate::error::{Error, Refusal, Result, chain};
use crate::model::text::excerpt;

/// The lifetime of the forwarding container in seconds.
const LIFETIME: &str = "120";
/// Connects its standard streams to an address; bash opens the connection without another program.
/// If that fails, bash prints the reason and keeps running, because Podman loses the output of a
/// program that exits at once.
const JOIN: &str = "exec 3<>\"/dev/tcp/$0/$1\" || exec cat >/dev/null; cat <&3 & exec cat >&3";

/// The text in bash's messages about failed connections.
const OPENED: &str = "/dev/tcp/";

/// The start of the engine's message about a program that cannot be run.
const NO_PROGRAM: &[u8] = b"OCI runtime exec failed";

/// The errors of connections.
#[derive(Default)]
struct ForwardErrors {
    /// The last error of a connection inside the network.
    failure: String,
    /// The reason why no connection is possible at all.
    fault: Option<String>,
}

/// A forwarded address.
pub(crate) struct Forward {
    port: u16,
    /// The errors reported by the forwarding container.
    errors: Arc<Mutex<ForwardErrors>>,
    accepting: JoinHandle<()>,
}

impl Forward {
    /// The port on loopback to connect to.
    #[must_use]
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The reason why the last connection inside the network failed, if it did.
    #[must_use]
    pub(crate) fn failure(&self) -> Option<String> {
        reason(&locked(&self.errors).failure)
    }

    /// The reason why the forwarding cannot work at all, if it cannot.
    #[must_use]
    pub(crate) fn fault(&self) -> Option<String> {
        locked(&self.errors).fault.clone()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Docker {
    /// Forwards a port of loopback to `host` and `port` as the container sees them. The forwarding
    /// container is named `helper`; [`Docker::remove_helper`] removes it, even after an
    /// interruption.
    ///
    /// # Errors
    /// [`Error::Absent`] if the container does not run, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn forward(
        &self,
        instance: &str,
        helper: &str,
        image: &str,
        container: &str,
        host: &str,
        port: u16,
    ) -> Result<Forward> {
        let absent = |state: &str| Error::Absent {
            what: format!("container {container} {state}"),
            hint: format!("`{}` lists the running containers", self.endpoint.docker_command("ps")),
        };
        let doing = format!("inspect container {container}");
        let found = self.find_by_id(&doing, container).await?;
        let found = found.ok_or_else(|| absent("does not exist"))?;
        if found.state.and_then(|state| state.running) != Some(true) {
            return Err(absent("does not run"));
        }
        let id = found.id.unwrap_or_default();
        self.start_helper(instance, helper, image, &id).await?;
        let io = |source| Error::Io { doing: "listen on loopback".into(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(io)?;
        let local = listener.local_addr().map_err(io)?.port();
        let errors = Arc::new(Mutex::new(ForwardErrors::default()));
        let (client, target) = (self.client.clone(), (helper.to_string(), host.to_string(), port));
        let noted = Arc::clone(&errors);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = crate::backoff::accepted(|| listener.accept()).await;
                let (client, target, noted) = (client.clone(), target.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    if let Err(why) = join(&client, &target, stream, &noted).await {
                        locked(&noted).fault = Some(excerpt(&chain(&why), 300));
                    }
                });
            }
        });
        Ok(Forward { port: local, errors, accepting })
    }

    async fn start_helper(&self, instance: &str, name: &str, image: &str, network_of: &str) -> Result<()> {
        let body = ContainerCreateBody {
            image: Some(image.into()),
            entrypoint: Some(vec!["sleep".into(), LIFETIME.into()]),
            cmd: Some(Vec::new()),
            // A container's first process ignores other signals, and Podman waits for it even
            // during a forced removal.
            stop_signal: Some("SIGKILL".into()),
            labels: Some(labels::of_instance(instance)),
            host_config: Some(HostConfig {
                network_mode: Some(format!("container:{network_of}")),
                auto_remove: Some(true),
                cap_drop: Some(vec!["ALL".into()]),
                security_opt: Some(vec!["no-new-privileges".into()]),
                readonly_rootfs: Some(true),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let doing = "create the container that connects from inside that network";
        let id = self.send_creation(doing, options, body).await?;
        self.call("start that container", self.client.start_container(&id, None::<StartContainerOptions>)).await
    }

    /// Removes the container of a forward, if it exists.
    ///
    /// # Errors
    /// [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn remove_helper(&self, id: &str) -> Result<()> {
        match self.remove("remove that container", id, true).await {
            Err(Error::Docker { refusal: Refusal::Conflict, .. }) => Ok(()),
            result => result,
        }
    }
}

/// Joins a connection with one inside the network.
async fn join(
    client: &bollard::Docker,
    (helper, host, port): &(String, String, u16),
    stream: TcpStream,
    errors: &Mutex<ForwardErrors>,
) -> Result<(), bollard::errors::Error> {
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(["bash", "-c", JOIN, host, &port.to_string()].map(String::from).to_vec()),
        ..ExecConfig::default()
    };
    locked(errors).failure.clear();
    let exec = client.create_exec(helper, config).await?;
    let (client, bounded) = for_stream(client);
    let StartExecResults::Attached { output, mut input } = client.start_exec(&exec.id, None).await? else {
        return Ok(());
    };
    let mut output = bounded(output);
    let (mut from_here, mut to_here) = stream.into_split();
    let inwards = async move {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from_here.read(&mut bytes).await {
            if input.write_all(&bytes[..length]).await.is_err() || input.flush().await.is_err() {
                break;
            }
        }
        let _ = input.shutdown().await;
    };
    let outwards = async move {
        let mut failure = String::new();
        while let Some(Ok(part)) = output.next().await {
            match part {
                LogOutput::StdErr { message } => {
                    failure.push_str(&String::from_utf8_lossy(&message));
                    locked(errors).failure.clone_from(&failure);
                    if failure.contains(OPENED) {
                        break;
                    }
                }
                // Instead of a server's answer, an engine may report here that the program does not exist.
                LogOutput::StdOut { message } if message.starts_with(NO_PROGRAM) => {
                    locked(errors).fault = Some(excerpt(&String::from_utf8_lossy(&message), 300));
                    break;
                }
                part => {
                    if to_here.write_all(&part.into_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        }
    };
    // The connection is over once the inside sends nothing more.
    tokio::select! {
        () = outwards => {}
        () = async { inwards.await; std::future::pending().await } => {}
    }
    Ok(())
}

/// The errors so far, even after a panic elsewhere.
fn locked(errors: &Mutex<ForwardErrors>) -> MutexGuard<'_, ForwardErrors> {
    errors.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reason why bash could not connect. Bash prints warnings first, then the reason, then the address.
fn reason(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let named = lines.iter().position(|line| line.contains(OPENED)).unwrap_or(1);
    let why = lines.get(named.saturating_sub(1))?;
    Some(excerpt(why.rsplit(": ").next().unwrap_or(why), 120).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_the_output_of_bash() {
        let refused =
            "127.0.0.1: connect: Connection refused\n127.0.0.1: line 1: /dev/tcp/127.0.0.1/1: Connection refused\n";
        let unknown =
            "nosuch: nosuch: Name or service not known\nnosuch: line 1: /dev/tcp/nosuch/1: Invalid argument\n";
        let warning = "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)\n";
        assert_eq!(reason(refused).as_deref(), Some("connection refused"));
        assert_eq!(reason(unknown).as_deref(), Some("name or service not known"));
        assert_eq!(reason(&format!("{warning}{refused}")).as_deref(), Some("connection refused"));
        assert_eq!(reason(""), None);
    }
}
