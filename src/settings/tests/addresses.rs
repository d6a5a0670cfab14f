//! The addresses of the servers, here and for Grafana.

use super::*;
use crate::settings::keys::file_keys;

#[test]
fn both_servers_cannot_have_one_address() {
    assert!(merged(&with(Setting::GrafanaPort, "8086"), &fresh()).is_err());
    let moved = memory_of(&merged(&with(Setting::InfluxdbPort, "9000"), &fresh()).unwrap());
    assert!(check(&with(Setting::GrafanaPort, "8086")).is_ok(), "the other one may have moved");
    assert!(merged(&with(Setting::GrafanaPort, "8086"), &moved).is_ok());
    let mut it = with(Setting::GrafanaPort, "8086");
    it.options.insert(Setting::GrafanaIp, "127.0.0.2".into());
    assert!(merged(&it, &fresh()).is_ok());
}

#[test]
fn a_host_name_becomes_one_address() {
    let stack = merged(&with(Setting::InfluxdbIp, "localhost"), &fresh()).unwrap();
    assert_eq!(spec(&stack, Role::Influxdb).config.publish.ip(), IpAddr::from([127, 0, 0, 1]));
    assert!(merged(&with(Setting::InfluxdbIp, "nowhere"), &fresh()).is_err());
}

#[test]
fn a_wildcard_is_reached_on_loopback_and_an_engine_elsewhere_by_its_name() {
    let mut it = with(Setting::InfluxdbIp, "0.0.0.0");
    it.options.insert(Setting::GrafanaIp, "::".into());
    let stack = merged(&it, &fresh()).unwrap();
    assert_eq!(stack.url(Role::Influxdb).to_string(), "http://127.0.0.1:8086");
    assert_eq!(stack.url(Role::Grafana).to_string(), "http://[::1]:3000");
    let far = || EngineLocation::Elsewhere("box".into());
    assert_eq!(merged_on(far(), &it, &fresh()).unwrap().url(Role::Influxdb).to_string(), "http://box:8086");
    it.options.remove(&Setting::GrafanaIp);
    let error = merged_on(far(), &it, &fresh()).unwrap_err();
    assert_eq!(error.exit(), crate::error::Exit::Usage);
    let hint = error.hint(&Invocation::default());
    assert!(hint.contains("--grafana-ip"), "{hint}");
}

#[test]
fn the_default_password_is_for_loopback_alone() {
    let mut it = inputs();
    let source = |it: &Inputs| merged(it, &fresh()).map(|stack| spec(&stack, Role::Grafana).config.password);
    assert_eq!(source(&it).unwrap(), PasswordSource::Default);
    it.secrets.grafana_password = Some(Secret::new("admin"));
    assert_eq!(source(&it).unwrap(), PasswordSource::Default);
    it.options.insert(Setting::GrafanaIp, "0.0.0.0".into());
    assert!(source(&it).is_err(), "admin/admin for everybody");
    it.secrets.grafana_password = None;
    assert_eq!(source(&it).unwrap(), PasswordSource::File);
}

#[test]
fn the_data_source_gets_the_address_that_grafana_can_reach() {
    let url = |influxdb: &str, grafana: &str| {
        let mut it = with(Setting::InfluxdbUrl, influxdb);
        it.options.insert(Setting::GrafanaUrl, grafana.into());
        merged(&it, &fresh()).unwrap().data_source.url
    };
    assert_eq!(url("", ""), "http://influxdb:8086");
    assert_eq!(url("http://127.0.0.1:8086/", ""), "http://host.docker.internal:8086");
    assert_eq!(url("http://[::1]:8086", ""), "http://host.docker.internal:8086");
    assert_eq!(url("https://db.example:8086", ""), "https://db.example:8086");
    assert_eq!(url("", "http://localhost:3000"), "http://127.0.0.1:8086");
    assert_eq!(url("http://localhost:8086", "http://localhost:3000"), "http://localhost:8086");
}

#[test]
fn an_address_that_cannot_be_published_names_the_key_in_clippers_file() {
    let hint = |change: &dyn Fn(&mut ClipperFile, &mut Inputs)| {
        let (mut file, mut it) = (ClipperFile { path: "conf/a.toml".into(), ..ClipperFile::default() }, inputs());
        change(&mut file, &mut it);
        it.file = Some(file);
        match merged(&it, &fresh()).unwrap_err() {
            Error::Usage { hint, .. } => hint,
            other => panic!("{other}"),
        }
    };
    let same_port = hint(&|file, _| file.influx_port = Some("3000".into()));
    assert_eq!(same_port, "choose another port with `influx_port` in conf/a.toml or --grafana-port");
    let by_option = hint(&|_, it| drop(it.options.insert(Setting::InfluxdbPort, "3000".into())));
    assert_eq!(by_option, "choose another port with --influxdb-port or --grafana-port");
    let no_address = hint(&|file, _| file.influx_ip = Some("nohost.invalid".into()));
    assert!(no_address.contains("with `influx_ip` in conf/a.toml, or"), "{no_address}");
}

#[test]
fn a_loopback_address_in_a_mark_names_its_machine_even_if_that_has_no_fingerprint() {
    let made_for = |engine: &EngineFacts, change: &dyn Fn(&mut Inputs)| {
        let mut it = with(Setting::GrafanaUrl, "http://grafana.example:3000");
        change(&mut it);
        merge(&it, engine, &fresh()).unwrap().0.data_source.made_for()
    };
    let here = engine(EngineLocation::Here);
    let machine = |change: &dyn Fn(&mut Inputs)| made_for(&here, change).machine;
    let over_ssh = EngineLocation::OverSsh { host: "box".into(), forward: SshForward { destination: "box".into() } };
    assert_eq!(machine(&|_| ()).as_deref(), Some("machine:this engine:docker"));
    assert_eq!(made_for(&engine(over_ssh), &|_| ()).machine.as_deref(), Some("engine:docker"));
    let external = |it: &mut Inputs| drop(it.options.insert(Setting::InfluxdbUrl, "http://127.0.0.1:8086".into()));
    assert_eq!(machine(&external).as_deref(), Some("machine:this"));
    let chosen = |it: &mut Inputs| drop(it.options.insert(Setting::DataSourceUrl, "http://10.0.0.1:8086".into()));
    assert_eq!(machine(&chosen), None);
    // A machine without a fingerprint differs from every known machine.
    let known = made_for(&here, &|_| ());
    let unknown = made_for(&EngineFacts::unreached(String::new()), &|it| it.machine = None);
    assert_eq!(known.url, unknown.url);
    assert!(known.is_on_another_machine(&unknown) && unknown.is_on_another_machine(&known));
    // InfluxDB has moved from a container to a package, or an engine's properties are denied.
    for same in [made_for(&here, &external), made_for(&EngineFacts::unreached(String::new()), &|_| ())] {
        assert!(same.is_same(&known) && known.is_same(&same), "{same:?}");
    }
    let on = |fingerprints: &str| MadeFor { machine: Some(fingerprints.into()), ..known.clone() };
    for (one, other, differs) in [
        ("machine:a engine:x", "machine:a", false),
        ("machine:a engine:x", "engine:x", false),
        // Machines made from one template share the number of their engines, and images with a machine-id(5) that.
        ("machine:a engine:x", "machine:b engine:x", true),
        ("machine:a engine:x", "machine:a engine:y", true),
        ("machine:a host:fedora", "machine:b host:fedora", true),
        ("machine:a host:old", "machine:a host:new", false),
        ("host:a", "host:a", false),
        ("host:a", "host:b", true),
        ("machine:a", "engine:x", true),
        ("unknown", "unknown", false),
    ] {
        let [one, other] = [one, other].map(on);
        assert_eq!(one.is_on_another_machine(&other), differs, "{one:?} {other:?}");
        assert_eq!(other.is_on_another_machine(&one), differs, "{one:?} {other:?}");
    }
    // Marks of older versions name no machine.
    assert!(MadeFor { machine: None, ..known.clone() }.is_same(&unknown));
}

#[test]
fn at_a_wildcard_only_addresses_of_the_engines_machine_reach_influxdb() {
    let reaches = |publish: &str, engine: EngineLocation, host: &str| {
        let mut inputs = with(Setting::InfluxdbIp, publish);
        inputs.options.insert(Setting::GrafanaIp, "0.0.0.0".into());
        inputs.resolve = |name| match name {
            "box" => vec![IpAddr::from([198, 51, 100, 7])],
            "localhost" => vec![IpAddr::from([127, 0, 0, 1])],
            _ => Vec::new(),
        };
        let text = format!("influx_ip = \"{host}\"\n");
        inputs.file = Some(crate::clipper::file::parse(std::path::Path::new("c.toml"), &text, &file_keys()).unwrap());
        let stack = merged_on(engine, &inputs, &fresh()).unwrap();
        stack.clipper.as_ref().unwrap().reaches(&stack)
    };
    let far = || EngineLocation::Elsewhere("box".into());
    for (publish, engine, host, expected) in [
        ("0.0.0.0", EngineLocation::Here, "127.0.0.1", true),
        ("0.0.0.0", EngineLocation::Here, "192.0.2.1", true),
        ("0.0.0.0", EngineLocation::Here, "localhost", true),
        ("0.0.0.0", EngineLocation::Here, "0.0.0.0", true),
        ("0.0.0.0", EngineLocation::Here, "192.0.2.2", false),
        ("0.0.0.0", EngineLocation::Here, "box", false),
        ("0.0.0.0", EngineLocation::Here, "[::1]", false),
        ("::", EngineLocation::Here, "[::1]", true),
        // Clipper inserts the host into a URL.
        ("::", EngineLocation::Here, "::1", false),
        ("192.0.2.1", EngineLocation::Here, "192.0.2.1", true),
        ("192.0.2.1", EngineLocation::Here, "127.0.0.1", false),
        ("0.0.0.0", far(), "box", true),
        ("0.0.0.0", far(), "198.51.100.7", true),
        ("0.0.0.0", far(), "192.0.2.1", false),
        ("0.0.0.0", far(), "127.0.0.1", false),
    ] {
        assert_eq!(reaches(publish, engine.clone(), host), expected, "{host} for {publish} on {engine:?}");
    }
}
