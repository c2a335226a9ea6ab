complete -c knock -s d -l delay -d 'Wait this many milliseconds between hits' -r
complete -c knock -s u -l udp -d 'Make every hit UDP, whatever stands behind the ports (default: TCP)'
complete -c knock -s 4 -l ipv4 -d 'Use IPv4 only'
complete -c knock -s 6 -l ipv6 -d 'Use IPv6 only'
complete -c knock -s v -l verbose -d 'Say what is hit'
complete -c knock -s V -l version -d 'Print version'
complete -c knock -s h -l help -d 'Print help'
