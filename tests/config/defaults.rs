//! A key that a file leaves out has the default of the model.

use knockd::config::{Format, Host, parse};
use knockd::model::{Config, Door, Firewall};

#[test]
fn a_door_of_few_words_has_the_defaults_of_the_model() {
    let text = "[door.ssh]\nsequence = ['17302/tcp', '4022/udp', '39855/tcp']\nopen = ['22/tcp']\n";
    let report = parse("x", text, Format::Toml, &Host::default());
    let step = |text: &str| text.parse().expect("a step");
    let expected = Config {
        firewall: Some(Firewall::default()),
        doors: [Door {
            open: ["22/tcp".parse().expect("a port")].into(),
            ..Door::new(
                "ssh",
                ["17302/tcp", "4022/udp", "39855/tcp"].map(step).to_vec(),
            )
        }]
        .into(),
        ..Config::default()
    };
    assert_eq!(report.config, Some(expected));
}
