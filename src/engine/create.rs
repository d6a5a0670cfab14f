//! Creates containers: translates their configuration to the engine's request.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{CreateContainerOptions, CreateContainerOptionsBuilder};

use super::labels::{self, Labels};
use super::{Docker, files};
use crate::error::{Error, Result};
use crate::model::container_config::{ContainerConfig, PasswordSource};
use crate::model::role::Role;
use crate::model::stack::DesiredContainer;

/// The environment of a private Grafana beyond its configuration, which overrides the image's
/// settings: a rejected password is then a wrong password, rather than the effect of a disabled way
/// to sign in or of a locked account.
const PRIVATE: [&str; 5] = [
    "GF_AUTH_ANONYMOUS_ENABLED=false",
    "GF_AUTH_BASIC_ENABLED=true",
    "GF_AUTH_DISABLE_LOGIN=false",
    "GF_AUTH_DISABLE_LOGIN_FORM=false",
    "GF_SECURITY_DISABLE_BRUTE_FORCE_LOGIN_PROTECTION=true",
];

/// Properties of a new container beyond its configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Creation<'a> {
    pub(crate) instance: &'a str,
    /// Grafana's first administrator, if it is not Grafana's default.
    pub(crate) grafana_user: Option<&'a str>,
    /// Whether only this program can reach it: Grafana then offers every way to sign in, and never
    /// locks an account.
    pub(crate) private: bool,
    /// The engine's id of an image to use instead of the specified one.
    pub(crate) image: Option<&'a str>,
}

impl Docker {
    /// Creates a container and returns its id.
    ///
    /// # Errors
    /// [`Error::Raced`] if the network is gone, [`Error::Docker`] if the engine returns an error.
    pub(crate) async fn create_container(
        &self,
        creation: Creation<'_>,
        spec: &DesiredContainer,
        config: &ContainerConfig,
    ) -> Result<String> {
        let instance = creation.instance;
        let network = self.network(instance).await?;
        let doing = format!("create container {}", spec.name);
        let Some(network) = network.id() else {
            return Err(Error::Raced { doing, why: format!("network {instance} is gone") });
        };
        let volume = self.volume_labels(instance, spec).await?;
        let binding = binding(config.publish, self.is_podman().await?);
        let mut body = body(creation, spec.role, config, binding, network, volume);
        if config.host_gateway
            && let Some(host) = &mut body.host_config
        {
            let address = self.host_address(instance).await?;
            host.extra_hosts = address.map(|address| vec![format!("{}:{address}", ContainerConfig::HOST_NAME)]);
        }
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        self.send_creation(&doing, options, body).await
    }

    /// Sends the request that creates a container, and returns its id.
    pub(super) async fn send_creation(
        &self,
        doing: &str,
        options: CreateContainerOptions,
        body: ContainerCreateBody,
    ) -> Result<String> {
        let create = |client: bollard::Docker| async move { client.create_container(Some(options), body).await };
        Ok(self.change(doing, create).await?.id)
    }
}

/// Publishes a port; 0 means a port that the engine chooses. A port that Podman publishes at `0.0.0.0` is reachable from
/// nowhere (netavark adds a rule for that address alone), so the address is omitted.
pub(super) fn binding(publish: SocketAddr, is_podman: bool) -> PortBinding {
    let is_any = is_podman && publish.ip() == Ipv4Addr::UNSPECIFIED;
    PortBinding {
        host_ip: (!is_any).then(|| publish.ip().to_string()),
        host_port: Some(if publish.port() == 0 { String::new() } else { publish.port().to_string() }),
    }
}

/// The request that creates a container. `volume` holds the labels for a volume that has vanished
/// since it was inspected: the engine would create it without labels.
fn body(
    creation: Creation<'_>,
    role: Role,
    config: &ContainerConfig,
    binding: PortBinding,
    network: &str,
    volume: Labels,
) -> ContainerCreateBody {
    let port = format!("{}/tcp", role.port());
    let mut env: Vec<String> = config.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if role == Role::Grafana {
        if config.password == PasswordSource::File {
            env.push(format!("GF_SECURITY_ADMIN_PASSWORD=$__file{{{}}}", files::password_path()));
        }
        env.extend(creation.grafana_user.map(|user| format!("GF_SECURITY_ADMIN_USER={user}")));
        if creation.private {
            env.extend(PRIVATE.map(String::from));
        }
    }
    let text = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    };
    let host_config = HostConfig {
        port_bindings: Some(HashMap::from([(port.clone(), Some(vec![binding]))])),
        network_mode: Some(network.to_string()),
        mounts: Some(vec![Mount {
            typ: Some(MountType::VOLUME),
            source: Some(config.volume.clone()),
            target: Some(role.data_path().into()),
            volume_options: Some(MountVolumeOptions { labels: Some(volume), ..MountVolumeOptions::default() }),
            ..Mount::default()
        }]),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(text(&ContainerConfig::LOG_LIMIT)),
        }),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(config.read_only),
        tmpfs: config.read_only.then(|| text(&[("/tmp", "")])),
        ..HostConfig::default()
    };
    let endpoint = EndpointSettings { aliases: Some(vec![role.name().to_string()]), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(creation.image.map_or_else(|| config.image.to_string(), String::from)),
        env: Some(env),
        labels: Some(labels::of_container(creation.instance, role, config)),
        exposed_ports: Some(vec![port]),
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_string(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_gets_no_address_for_all_ipv4_addresses() {
        let address = |text: &str, is_podman| binding(text.parse().unwrap(), is_podman).host_ip;
        for text in ["0.0.0.0:1", "127.0.0.1:1", "[::]:1"] {
            let ip = text.parse::<SocketAddr>().unwrap().ip().to_string();
            assert_eq!(address(text, false), Some(ip.clone()));
            assert_eq!(address(text, true), Some(ip).filter(|ip| ip != "0.0.0.0"));
        }
    }

    #[test]
    fn a_vanished_volume_is_recreated_with_its_labels() {
        let config = ContainerConfig {
            publish: "127.0.0.1:0".parse().unwrap(),
            read_only: false,
            password: PasswordSource::File,
            ..crate::samples::container_config(Role::Grafana)
        };
        let creation = Creation { instance: "x", grafana_user: Some("me"), private: true, image: None };
        let labels = labels::of_volume(
            "x",
            Role::Grafana,
            Some("472"),
            &crate::model::image::ImageRef::parse("grafana:1.2").unwrap(),
        );
        let body = body(creation, Role::Grafana, &config, binding(config.publish, false), "n", labels.clone());
        let host = body.host_config.unwrap();
        let mount = host.mounts.unwrap().remove(0);
        assert_eq!(mount.volume_options.unwrap().labels, Some(labels));
        // The engine chooses the port, and the environment contains no secret.
        assert_eq!(host.port_bindings.unwrap()["3000/tcp"].as_ref().unwrap()[0].host_port.as_deref(), Some(""));
        let environment = body.env.unwrap().join(" ");
        assert!(environment.contains("GF_SECURITY_ADMIN_USER=me") && environment.contains("$__file{/var/lib/grafana/"));
        assert!(PRIVATE.iter().all(|variable| environment.contains(variable)), "{environment}");
    }
}
