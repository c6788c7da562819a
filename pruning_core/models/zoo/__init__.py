"""The networks of the papers: ``networks.yml`` lists their variants, the files hold the kinds of networks."""
