#!/bin/sh
# Make the guest's files: build_image.sh BASE OUT INITRD_MODULES MASKED_UNITS DISK_SIZE
# BASE is the lab's image; OUT holds system/ (files for the guest's root) and gets vmlinuz, disk.img and initrd/.
# To be run in a mount namespace of its own (unshare --mount), which takes the mounts down with it.
set -eu
base=$1 modules=$3 masked=$4 disk_size=$5
cd "$2"

mkdir upper work tree kernel
mount -t overlay overlay -o "lowerdir=$base,upperdir=upper,workdir=work" tree
mount -t proc proc tree/proc
in_tree() { chroot tree env DEBIAN_FRONTEND=noninteractive "$@"; }
cat /etc/resolv.conf >tree/etc/resolv.conf
# Maintainer scripts must not start daemons in a chroot (invoke-rc.d asks this script first).
printf '#!/bin/sh\nexit 101\n' >tree/usr/sbin/policy-rc.d
chmod 755 tree/usr/sbin/policy-rc.d

in_tree apt-get -qq update
in_tree apt-get -qq -y --no-install-recommends install udev kmod busybox-static
package=$(in_tree apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p')
# Unpacked, not installed: its scripts would build an initrd and look for a boot loader. Not over the tree itself, whose
# /lib is a link that dpkg-deb would replace.
in_tree sh -c "cd /tmp && apt-get -qq -o APT::Sandbox::User=root download $package"
dpkg-deb -x "$(echo tree/tmp/"$package"_*.deb)" kernel
rm tree/tmp/"$package"_*.deb
mv kernel/boot/vmlinuz-* vmlinuz
mkdir -p tree/usr/lib/modules
mv kernel/lib/modules/* tree/usr/lib/modules/
in_tree depmod "${package#linux-image-}"
rm -rf tree/var/lib/apt/lists/* tree/var/cache/apt/*.bin tree/var/cache/apt/archives/*.deb tree/usr/sbin/policy-rc.d

mkdir -p initrd/bin initrd/dev initrd/root initrd/modules
cp tree/bin/busybox initrd/bin/busybox
for module in $modules; do find tree/usr/lib/modules -name "$module.ko" -exec cp {} initrd/modules/ ';'; done

cp -a system/. tree/
in_tree systemctl --quiet enable systemd-networkd.service guest-ready.service
# shellcheck disable=SC2086 # a list
in_tree systemctl --quiet mask $masked
umount tree/proc
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 -d tree disk.img "$disk_size"
