//! knockd on a machine of its own: Debian's kernels, a real systemd, the shipped units, and strangers on
//! the other end of the wire.
//!
//! The machine is emulated by qemu. contrib/vm.sh makes what it boots, and runs these tests: all of them, while
//! contrib/test.sh runs those that are not ignored.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

// Each test binary uses some part of it.
#[allow(dead_code)]
#[path = "../daemon/site.rs"]
mod site;

mod boot;
mod devices;
mod flushes;
mod kernel;
mod machine;
mod service;
mod strangers;
mod upgrade;

/// Makes tests on a kernel: by file and function, some of them with an attribute.
macro_rules! on_kernel {
    ($name:ident, $kernel:ident: $($file:ident { $($(#[$mark:meta])* $test:ident)+ })+) => {
        mod $name {
            $(mod $file { $(
                #[test]
                $(#[$mark])*
                fn $test() {
                    needs!(Laboratory, Machine);
                    crate::$file::$test(crate::kernel::Kernel::$kernel);
                }
            )+ })+
        }
    };
}

on_kernel! { linux_6_12, Linux6_12:
    boot {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        units_enabled_before_the_first_boot_leave_no_open_moment
        a_network_that_is_up_before_systemd_finds_no_open_moment
        #[ignore = "on demand: contrib/vm.sh runs it"]
        units_enabled_later_leave_no_open_moment_from_then_on
        a_broken_file_opens_nothing_at_a_boot
        #[ignore = "on demand: contrib/vm.sh runs it"]
        without_a_file_the_machine_boots_and_says_what_is_wrong
    }
    service {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_reload_fails_where_the_file_is_refused
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_daemon_that_hangs_or_dies_is_replaced
        #[ignore = "on demand: contrib/vm.sh runs it"]
        the_guard_outlives_a_stop
        #[ignore = "on demand: contrib/vm.sh runs it"]
        knocks_amid_restarts_open_and_ring
    }
    upgrade {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        an_upgrade_leaves_no_open_moment_and_loses_no_opening
    }
    flushes {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_ruleset_that_is_flushed_again_and_again_is_guarded
    }
    devices {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        what_other_kernels_lack_is_listened_on_and_guarded
    }
}

on_kernel! { linux_6_1, Linux6_1:
    boot {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        units_enabled_before_the_first_boot_leave_no_open_moment
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_network_that_is_up_before_systemd_finds_no_open_moment
        #[ignore = "on demand: contrib/vm.sh runs it"]
        units_enabled_later_leave_no_open_moment_from_then_on
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_broken_file_opens_nothing_at_a_boot
        #[ignore = "on demand: contrib/vm.sh runs it"]
        without_a_file_the_machine_boots_and_says_what_is_wrong
    }
    service {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_reload_fails_where_the_file_is_refused
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_daemon_that_hangs_or_dies_is_replaced
        #[ignore = "on demand: contrib/vm.sh runs it"]
        the_guard_outlives_a_stop
        #[ignore = "on demand: contrib/vm.sh runs it"]
        knocks_amid_restarts_open_and_ring
    }
    upgrade {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        an_upgrade_leaves_no_open_moment_and_loses_no_opening
    }
    flushes {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        a_ruleset_that_is_flushed_again_and_again_is_guarded
    }
    devices {
        #[ignore = "on demand: contrib/vm.sh runs it"]
        what_other_kernels_lack_is_listened_on_and_guarded
    }
}
