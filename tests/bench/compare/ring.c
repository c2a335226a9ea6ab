/*
 * The least that a sniffer does that waits for its ring: a packet socket on every interface,
 * with a ring as large as knockd's, for which packet_set_ring() of net/packet/af_packet.c
 * waits for a grace period of RCU.
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	const struct tpacket_req ring = {
		.tp_block_size = 1 << 17, .tp_block_nr = 16,
		.tp_frame_size = 256, .tp_frame_nr = 1 << 13,
	};
	const struct sockaddr_ll all = {
		.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
	};
	const int version = TPACKET_V2;
	int fd = socket(AF_PACKET, SOCK_DGRAM, 0);

	if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version)
	    || setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring)
	    || mmap(NULL, 1 << 21, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED
	    || bind(fd, (const struct sockaddr *)&all, sizeof all)) {
		perror("a packet socket with a ring");
		return 1;
	}
	puts("listening on all");
	fflush(stdout);
	return pause();
}
